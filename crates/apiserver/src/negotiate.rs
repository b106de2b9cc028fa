//! Content negotiation: which form a client sends and which it wants.
//!
//! Input: `Accept` and `Content-Type`. Output: a [`Representation`] or a 406, a [`Media`] or a 415.
//! Invariant: pure; the rules and texts are upstream's `negotiation` package. CBOR is not served.

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, USER_AGENT};

use crate::error::ApiError;
use crate::request::Query;
use crate::write_options::OptionsKind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Media {
    Json,
    Yaml,
    Proto,
}

impl Media {
    pub const ALL: [&'static str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
    const STREAMS: [&'static str; 2] =
        ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
    /// What a path answers that both lists and watches.
    const COLLECTION: [&'static str; 5] =
        [Self::ALL[0], Self::ALL[1], Self::ALL[2], Self::STREAMS[0], Self::STREAMS[1]];

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Proto => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// What an object is turned into for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    Object,
    /// `PartialObjectMetadata`, or the list of them.
    Partial,
    Table,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Representation {
    pub media: Media,
    pub shape: Shape,
    /// Of `meta.k8s.io`, for partial objects and tables: `v1beta1` instead of `v1`.
    pub beta: bool,
    pub pretty: bool,
}

impl Representation {
    pub const JSON: Self = Self { media: Media::Json, shape: Shape::Object, beta: false, pretty: false };

    pub fn meta_version(self) -> &'static str {
        if self.beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }

    /// A small number that tells representations of one resource apart.
    pub fn number(self) -> u32 {
        let media = match self.media {
            Media::Json => 0,
            Media::Yaml => 1,
            Media::Proto => 2,
        };
        let shape = match self.shape {
            Shape::Object => 0,
            Shape::Partial => 1,
            Shape::Table => 2,
        };
        media + 4 * shape + 16 * u32::from(self.beta)
    }
}

/// What an endpoint can answer with.
#[derive(Debug, Clone, Copy)]
pub struct Offers {
    /// Tables and partial objects: only what has object metadata of its own.
    pub transforms: bool,
    /// Protobuf: not for custom resources.
    pub proto: bool,
    /// A watch: no YAML.
    pub stream: bool,
    /// A path that both lists and watches.
    pub collection: bool,
}

impl Offers {
    pub const PLAIN: Self = Self { transforms: false, proto: true, stream: false, collection: false };
}

/// One clause of an Accept header.
struct Clause<'a> {
    kind: &'a str,
    sub: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
    quality: f32,
}

impl Clause<'_> {
    fn is(&self, media: Media) -> bool {
        media.content_type().split_once('/') == Some((self.kind, self.sub))
    }

    /// One of our types by name, or any at all.
    fn names_known_type(&self) -> bool {
        (self.kind, self.sub) == ("*", "*") || [Media::Json, Media::Yaml, Media::Proto].into_iter().any(|m| self.is(m))
    }
}

pub fn negotiate_output(headers: &HeaderMap, query: &Query, offers: Offers) -> Result<Representation, ApiError> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let mut plain = Representation { pretty: wants_pretty(headers, query), ..Representation::JSON };
    if accept.is_empty() {
        return Ok(plain);
    }
    let mut clauses: Vec<Clause<'_>> = accept.split(',').filter_map(parse_clause).collect();
    if !clauses.iter().any(Clause::names_known_type) {
        return Err(ApiError::no_representation(if offers.collection { &Media::COLLECTION } else { &Media::ALL }));
    }
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    for clause in &clauses {
        if offers.stream && clause.is(Media::Yaml) {
            break;
        }
        for media in [Media::Json, Media::Yaml, Media::Proto] {
            if let Some(found) = accept_clause(clause, media, offers) {
                plain = Representation { pretty: found.pretty || plain.pretty, ..found };
                return Ok(plain);
            }
        }
    }
    Err(ApiError::not_acceptable(if offers.stream { &Media::STREAMS } else { &Media::ALL }))
}

fn parse_clause(text: &str) -> Option<Clause<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let (kind, sub) = parts.next()?.split_once('/')?;
    let mut clause = Clause { kind, sub, parameters: Vec::new(), quality: 1.0 };
    for part in parts {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        match key.trim() {
            "q" => clause.quality = value.parse().unwrap_or(1.0),
            key => clause.parameters.push((key, value)),
        }
    }
    Some(clause)
}

fn accept_clause(clause: &Clause<'_>, media: Media, offers: Offers) -> Option<Representation> {
    let wild = clause.sub == "*" && matches!(clause.kind, "*" | "application");
    let fits = wild || clause.is(media);
    if !fits || (media == Media::Proto && !offers.proto) || (media == Media::Yaml && offers.stream) {
        return None;
    }
    let mut found = Representation { media, ..Representation::JSON };
    let (mut to, mut group, mut version) = (None, "", "");
    for (key, value) in &clause.parameters {
        match *key {
            "as" => to = Some(*value),
            "g" => group = value,
            "v" => version = value,
            "pretty" => found.pretty = *value == "1",
            "stream" if !value.is_empty() && (*value != "watch" || media == Media::Yaml) => return None,
            "sv" if !value.is_empty() => return None,
            _ => {}
        }
    }
    let Some(to) = to else {
        return (group.is_empty() && version.is_empty()).then_some(found);
    };
    if !offers.transforms || group != "meta.k8s.io" || !matches!(version, "v1" | "v1beta1") {
        return None;
    }
    found.beta = version == "v1beta1";
    found.shape = match to {
        "Table" if media != Media::Proto => Shape::Table,
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Shape::Partial,
        _ => return None,
    };
    Some(found)
}

fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    if let Some(value) = query.get("pretty").filter(|v| !v.is_empty()) {
        return matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    }
    let agent = headers.get(USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|known| agent.starts_with(known))
}

/// The form of a request body; JSON when the client does not say.
pub fn negotiate_input(headers: &HeaderMap) -> Result<Media, ApiError> {
    match body_type(headers) {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Media::Proto),
        _ => Err(ApiError::unsupported_media_type(&Media::ALL)),
    }
}

/// The four patch types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchType {
    pub fn options_kind(self) -> OptionsKind {
        if self == Self::Apply { OptionsKind::Apply } else { OptionsKind::Patch }
    }

    /// What custom resources take.
    const ALL: [&'static str; 3] =
        ["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
}

/// `strategic`: custom resources have none.
pub fn negotiate_patch(headers: &HeaderMap, strategic: bool) -> Result<PatchType, ApiError> {
    match body_type(headers) {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        "application/strategic-merge-patch+json" if strategic => Ok(PatchType::Strategic),
        "application/strategic-merge-patch+json" => Err(ApiError::unsupported_media_type(&PatchType::ALL)),
        _ => Err(ApiError::unsupported_patch_type()),
    }
}

fn body_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expect: &str) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().expect("header"));
        let offers = Offers { transforms: true, ..Offers::PLAIN };
        let got = match negotiate_output(&headers, &Query::default(), offers) {
            Ok(r) => format!("{:?} {:?} {}", r.media, r.shape, r.meta_version()),
            Err(e) => format!("{} {}", e.code, e.message),
        };
        assert_eq!(got, expect, "{accept}");
    }

    #[test]
    fn accept_headers_of_real_clients() {
        check("*/*", "Json Object meta.k8s.io/v1");
        check("application/json", "Json Object meta.k8s.io/v1");
        check("application/vnd.kubernetes.protobuf, application/json", "Proto Object meta.k8s.io/v1");
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
            "Json Table meta.k8s.io/v1",
        );
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            "Proto Partial meta.k8s.io/v1",
        );
        check("application/json;as=Unknown;v=v1;g=meta.k8s.io, application/yaml", "Yaml Object meta.k8s.io/v1");
        check("application/json;q=0.5, application/yaml", "Yaml Object meta.k8s.io/v1");
        check(
            "text/html",
            "406 406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        );
        check(
            "application/json;as=Unknown;v=v1;g=meta.k8s.io",
            "406 only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf",
        );
    }
}
