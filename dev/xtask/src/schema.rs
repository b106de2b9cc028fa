//! `cargo xtask schema`: published Go modules + published OpenAPI -> `crates/api/src/schema/table.txt`.
//!
//! Reads, for every API package that v1.37 serves by default, the protobuf definitions (tags and wire types), the Go
//! struct declarations (field order, JSON names, pointers, what JSON inlines) and the OpenAPI documents (required,
//! list types and keys, patch strategies, defaults), and writes one sorted text table. Facts only: no descriptions.
//! The same input always gives the same bytes. It downloads nothing: the modules must be in the directory named by
//! `--modules` (a Go module cache's `k8s.io` directory).

mod golang;
mod openapi;
mod proto;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use golang::GoField;
use openapi::Facts;
use proto::{ProtoField, Repeat};

/// Where a package's two sources are below the modules directory, and how the API calls it.
struct Package {
    dir: &'static str,
    proto: &'static str,
    /// `group/version` as clients write it; `-` when the package holds shared types only.
    api: &'static str,
}

const fn package(dir: &'static str, proto: &'static str, api: &'static str) -> Package {
    Package { dir, proto, api }
}

const API: &str = "api@v0.37.2";
const MACHINERY: &str = "apimachinery@v0.37.2";
const SPEC: &str = "kubernetes@v1.37.2/api/openapi-spec";

/// Every package in the table, in the order in which it is written.
const PACKAGES: &[Package] = &[
    package("api@v0.37.2/admission/v1", "k8s.io.api.admission.v1", "admission.k8s.io/v1"),
    package(
        "api@v0.37.2/admissionregistration/v1",
        "k8s.io.api.admissionregistration.v1",
        "admissionregistration.k8s.io/v1",
    ),
    package("api@v0.37.2/apidiscovery/v2", "k8s.io.api.apidiscovery.v2", "apidiscovery.k8s.io/v2"),
    package("api@v0.37.2/apps/v1", "k8s.io.api.apps.v1", "apps/v1"),
    package("api@v0.37.2/authentication/v1", "k8s.io.api.authentication.v1", "authentication.k8s.io/v1"),
    package("api@v0.37.2/authorization/v1", "k8s.io.api.authorization.v1", "authorization.k8s.io/v1"),
    package("api@v0.37.2/autoscaling/v1", "k8s.io.api.autoscaling.v1", "autoscaling/v1"),
    package("api@v0.37.2/autoscaling/v2", "k8s.io.api.autoscaling.v2", "autoscaling/v2"),
    package("api@v0.37.2/batch/v1", "k8s.io.api.batch.v1", "batch/v1"),
    package("api@v0.37.2/certificates/v1", "k8s.io.api.certificates.v1", "certificates.k8s.io/v1"),
    package("api@v0.37.2/coordination/v1", "k8s.io.api.coordination.v1", "coordination.k8s.io/v1"),
    package("api@v0.37.2/core/v1", "k8s.io.api.core.v1", "v1"),
    package("api@v0.37.2/discovery/v1", "k8s.io.api.discovery.v1", "discovery.k8s.io/v1"),
    package("api@v0.37.2/events/v1", "k8s.io.api.events.v1", "events.k8s.io/v1"),
    package("api@v0.37.2/flowcontrol/v1", "k8s.io.api.flowcontrol.v1", "flowcontrol.apiserver.k8s.io/v1"),
    package("api@v0.37.2/networking/v1", "k8s.io.api.networking.v1", "networking.k8s.io/v1"),
    package("api@v0.37.2/node/v1", "k8s.io.api.node.v1", "node.k8s.io/v1"),
    package("api@v0.37.2/policy/v1", "k8s.io.api.policy.v1", "policy/v1"),
    package("api@v0.37.2/rbac/v1", "k8s.io.api.rbac.v1", "rbac.authorization.k8s.io/v1"),
    package("api@v0.37.2/resource/v1", "k8s.io.api.resource.v1", "resource.k8s.io/v1"),
    package("api@v0.37.2/scheduling/v1", "k8s.io.api.scheduling.v1", "scheduling.k8s.io/v1"),
    // Not served: batch/v1 uses its types.
    package("api@v0.37.2/scheduling/v1alpha3", "k8s.io.api.scheduling.v1alpha3", "-"),
    package("api@v0.37.2/storage/v1", "k8s.io.api.storage.v1", "storage.k8s.io/v1"),
    package("api@v0.37.2/storagemigration/v1", "k8s.io.api.storagemigration.v1", "storagemigration.k8s.io/v1"),
    package(
        "apiextensions-apiserver@v0.37.2/pkg/apis/apiextensions/v1",
        "k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1",
        "apiextensions.k8s.io/v1",
    ),
    package("apimachinery@v0.37.2/pkg/apis/meta/v1", "k8s.io.apimachinery.pkg.apis.meta.v1", "-"),
    package(
        "kube-aggregator@v0.37.2/pkg/apis/apiregistration/v1",
        "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1",
        "apiregistration.k8s.io/v1",
    ),
];

/// Protobuf messages whose JSON form is a scalar or free-form; the codec knows each by this word.
const SPECIAL: &[(&str, &str)] = &[
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Time", "time"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.MicroTime", "microtime"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Duration", "duration"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.FieldsV1", "fields"),
    ("k8s.io.apimachinery.pkg.apis.meta.v1.Verbs", "strings"),
    ("k8s.io.apimachinery.pkg.api.resource.Quantity", "quantity"),
    ("k8s.io.apimachinery.pkg.util.intstr.IntOrString", "intorstring"),
    ("k8s.io.apimachinery.pkg.runtime.RawExtension", "raw"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSON", "json"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray", "schemaorarray"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool", "schemaorbool"),
    ("k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray", "schemaorstrings"),
    ("k8s.io.api.authentication.v1.ExtraValue", "strings"),
    ("k8s.io.api.authentication.v1.AttestationValue", "strings"),
    ("k8s.io.api.authorization.v1.ExtraValue", "strings"),
    ("k8s.io.api.certificates.v1.ExtraValue", "strings"),
];

/// `--modules DIR [--out FILE]`: generates the table. Without `--modules` it says how to get them.
pub fn run(args: &[String]) -> Result<(), String> {
    let modules = flag(args, "--modules")
        .ok_or("usage: cargo xtask schema --modules $(go env GOMODCACHE)/k8s.io [--out FILE]")?;
    let out = flag(args, "--out").unwrap_or_else(|| "crates/api/src/schema/table.txt".to_string());
    let modules = PathBuf::from(modules);
    let facts = Facts::read(&modules.join(SPEC))?;
    let mut text = format!("# Generated by `cargo xtask schema` from {API}, {MACHINERY} and {SPEC}. See schema.rs.\n");
    let count = write_packages(&modules, &facts, &mut text)?;
    std::fs::write(&out, &text).map_err(|e| format!("write {out}: {e}"))?;
    println!("{out}: {count} messages, {} bytes", text.len());
    Ok(())
}

fn flag(args: &[String], name: &str) -> Option<String> {
    args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).cloned()
}

fn write_packages(modules: &Path, facts: &Facts, text: &mut String) -> Result<usize, String> {
    let mut count = 0;
    for package in PACKAGES {
        let dir = modules.join(package.dir);
        let go = golang::read_structs(&dir)?;
        let messages = proto::read(&dir.join("generated.proto"), package.proto)?;
        let openapi = openapi_name(package.proto, "");
        *text += &format!("P {} {} {}\n", short(package.proto), openapi.trim_end_matches('.'), package.api);
        let inliners = inliners(package, &go, &messages);
        for (name, fields) in &messages {
            let full = format!("{}.{name}", package.proto);
            if SPECIAL.iter().any(|(special, _)| *special == full) || name == "Timestamp" {
                continue;
            }
            let Some(decl) = go.get(name) else { continue };
            // A struct that is only inlined is published as part of those that inline it.
            let outer = inliners.get(name.as_str()).copied().unwrap_or(name);
            let definition = openapi_name(package.proto, name);
            let published = if facts.has(&definition) { definition } else { openapi_name(package.proto, outer) };
            write_message(package, name, &published, (fields, decl), facts, text)?;
            count += 1;
        }
    }
    Ok(count)
}

/// Inlined struct -> a struct that inlines it, within one package.
fn inliners<'m>(
    package: &Package,
    go: &'m BTreeMap<String, golang::GoStruct>,
    messages: &'m proto::Messages,
) -> BTreeMap<&'m str, &'m str> {
    let mut found = BTreeMap::new();
    for (outer, fields) in messages {
        let Some(decl) = go.get(outer) else { continue };
        for field in decl.fields.iter().filter(|field| field.json.is_empty()) {
            let Some(proto) = fields.get(&field.tag) else { continue };
            if let Some((home, name)) = proto.ty.rsplit_once('.')
                && home == package.proto
            {
                found.entry(name).or_insert(outer.as_str());
            }
        }
    }
    found
}

fn write_message(
    package: &Package,
    name: &str,
    published: &str,
    (fields, decl): (&BTreeMap<u32, ProtoField>, &golang::GoStruct),
    facts: &Facts,
    text: &mut String,
) -> Result<(), String> {
    let mut flags = String::new();
    if decl.type_meta {
        flags.push_str(" typemeta");
    }
    if published == openapi_name(package.proto, name) {
        flags.push_str(&facts.message_flags(published));
    }
    *text += &format!("M {name}{flags}\n");
    let mut seen = 0;
    for go in &decl.fields {
        let Some(field) = fields.get(&go.tag) else { continue };
        seen += 1;
        *text += &format!(" {}\n", field_line(package, published, go, field, facts));
    }
    if seen != fields.len() {
        return Err(format!("{name}: {} protobuf fields, {seen} of them in the Go struct", fields.len()));
    }
    Ok(())
}

/// `json-name tag type [flags]`; the JSON name of an inlined message is `-`.
fn field_line(package: &Package, definition: &str, go: &GoField, field: &ProtoField, facts: &Facts) -> String {
    let inline = go.json.is_empty();
    let name = if inline { "-" } else { go.json.as_str() };
    let base = type_word(package, &field.ty, go);
    let ty = match field.repeat {
        Repeat::One => base,
        Repeat::List => format!("[]{base}"),
        Repeat::Map => format!("{{}}{base}"),
    };
    let mut line = format!("{name} {} {ty}", go.tag);
    for (set, word) in [(go.pointer, " ptr"), (go.omit_empty, " omit"), (go.omit_zero, " omitzero")] {
        if set {
            line.push_str(word);
        }
    }
    if !inline {
        line.push_str(&facts.field_flags(definition, name, go.omit_empty || go.pointer));
    }
    line
}

fn type_word(package: &Package, ty: &str, go: &GoField) -> String {
    if let Some((_, word)) = SPECIAL.iter().find(|(special, _)| *special == ty) {
        return (*word).to_string();
    }
    if !ty.contains('.') {
        // A scalar; a named Go type matters because decoding errors print it.
        return match &go.named {
            Some(named) => format!("{ty}:{named}"),
            None => ty.to_string(),
        };
    }
    let (home, name) = ty.rsplit_once('.').unwrap_or(("", ty));
    if home == package.proto { format!(".{name}") } else { format!("{}.{name}", short(home)) }
}

/// `k8s.io.api.core.v1` -> `core/v1`, `k8s.io.apimachinery.pkg.apis.meta.v1` -> `meta/v1`.
fn short(proto: &str) -> String {
    let mut parts = proto.rsplit('.');
    let version = parts.next().unwrap_or_default();
    let group = parts.next().unwrap_or_default();
    format!("{group}/{version}")
}

/// The OpenAPI definition's name: `k8s.io.api.core.v1` + `Pod` -> `io.k8s.api.core.v1.Pod`.
fn openapi_name(proto: &str, name: &str) -> String {
    format!("io.k8s.{}.{name}", proto.trim_start_matches("k8s.io.").replace('_', "-"))
}
