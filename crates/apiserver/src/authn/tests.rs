//! Certificates, tokens, impersonation and reviews on a small cluster with a clock that the test moves.

use std::time::Duration;

use base::{Clock, ManualClock};
use http::Request;
use serde_json::{Value, json};

use super::jwt::SigningKey;
use super::service_accounts::ISSUER;
use super::*;
use crate::authz::AuthorizerChain;
use crate::authz::objects::{Objects, pod};
use crate::chain::{Attributes, Review, TokenIssuer};
use crate::rbac::{GROUP, Rbac};

struct Lab {
    objects: Arc<Objects>,
    clock: Arc<ManualClock>,
    tokens: Arc<ServiceAccountTokens>,
}

fn key() -> String {
    rcgen::KeyPair::generate().unwrap().serialize_pem()
}

fn account(name: &str) -> Value {
    json!({"metadata": {"namespace": "ns", "name": name, "uid": format!("uid-{name}")}})
}

impl Lab {
    fn new() -> Self {
        let objects = Arc::new(Objects::default());
        objects.put("", "serviceaccounts", account("robot"));
        objects.put("", "pods", pod("ns", "p", "n1", json!({"serviceAccountName": "robot"})));
        objects.put("", "nodes", json!({"metadata": {"name": "n1", "uid": "uid-n1"}}));
        let clock = Arc::new(ManualClock::new("2026-11-25T00:00:00Z".parse().unwrap()));
        let tokens = Arc::new(ServiceAccountTokens::new(&key(), objects.clone(), clock.clone()).unwrap());
        Self { objects, clock, tokens }
    }

    async fn issue(&self, mut spec: Value) -> Result<Value, ApiError> {
        if spec["expirationSeconds"].is_null() {
            spec["expirationSeconds"] = json!(3600);
        }
        self.tokens.issue(&account("robot"), json!({"spec": spec}), &*self.objects).await
    }

    async fn pod_token(&self, seconds: i64) -> String {
        let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p"});
        let spec = json!({"boundObjectRef": bound, "expirationSeconds": seconds});
        self.issue(spec).await.unwrap()["status"]["token"].as_str().unwrap().to_owned()
    }

    fn refusal(&self, token: &str) -> String {
        self.tokens.authenticate(token, &self.tokens.default_audiences()).unwrap_err().to_string()
    }

    fn claims(&self, token: &str) -> Value {
        serde_json::from_slice(&self.tokens.signing_key().verify(token).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn a_pod_token_says_what_upstreams_says() {
    let lab = Lab::new();
    let token = lab.pod_token(3607).await;
    let mut claims = lab.claims(&token);
    let now = lab.clock.now().as_second();
    assert!(claims["jti"].take().as_str().is_some_and(|id| id.len() == 36));
    assert_eq!(
        claims,
        json!({
            "aud": [ISSUER], "iss": ISSUER, "iat": now, "nbf": now, "exp": now + 365 * 24 * 3600, "jti": null,
            "sub": "system:serviceaccount:ns:robot",
            "kubernetes.io": {
                "namespace": "ns", "warnafter": now + 3607,
                "serviceaccount": {"name": "robot", "uid": "uid-robot"},
                "pod": {"name": "p", "uid": "uid-p"}, "node": {"name": "n1", "uid": "uid-n1"},
            },
        })
    );
    let verified = lab.tokens.authenticate(&token, &lab.tokens.default_audiences()).unwrap();
    assert_eq!(verified.identity.user, "system:serviceaccount:ns:robot");
    assert_eq!(verified.identity.groups, ["system:serviceaccounts", "system:serviceaccounts:ns"]);
    assert_eq!(verified.identity.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert!(verified.identity.extra[CREDENTIAL_ID][0].starts_with("JTI="));
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_its_objects() {
    let lab = Lab::new();
    let token = lab.pod_token(600).await;
    lab.clock.advance(Duration::from_secs(650));
    assert!(lab.tokens.authenticate(&token, &lab.tokens.default_audiences()).is_ok(), "within the leeway");
    lab.clock.advance(Duration::from_secs(20));
    assert_eq!(lab.refusal(&token), "[invalid bearer token, service account token has expired]");
    lab.clock.jump("2026-11-24T00:00:00Z".parse().unwrap());
    assert_eq!(lab.refusal(&token), "[invalid bearer token, service account token is not valid yet]");

    let lab = Lab::new();
    let token = lab.pod_token(600).await;
    let mut other = pod("ns", "p", "n1", json!({"serviceAccountName": "robot"}));
    other["metadata"]["uid"] = "another".into();
    lab.objects.put("", "pods", other);
    let expect = "[invalid bearer token, pod UID (another) does not match service account pod ref claim (uid-p)]";
    assert_eq!(lab.refusal(&token), expect);
    lab.objects.remove("", "pods", "p");
    assert_eq!(lab.refusal(&token), "[invalid bearer token, service account token has been invalidated]");
    lab.objects.remove("", "serviceaccounts", "robot");
    assert_eq!(lab.refusal(&token), "[invalid bearer token, serviceaccounts \"robot\" not found]");
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let (lab, stranger) = (Lab::new(), SigningKey::from_pem(&key()).unwrap());
    let token = lab.pod_token(600).await;
    let claims = lab.tokens.signing_key().verify(&token).unwrap();
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (_, payload) = head.split_once('.').unwrap();
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let kid = lab.tokens.signing_key().key_id();
    let hmac = BASE64_URL_SAFE_NO_PAD.encode(json!({"alg": "HS256", "kid": kid}).to_string());
    let changed = BASE64_URL_SAFE_NO_PAD.encode(String::from_utf8_lossy(&claims).replace("robot", "admin"));
    let (header, _) = head.split_once('.').unwrap();
    for forged in [
        stranger.sign(&claims).unwrap(),
        format!("{none}.{payload}."),
        format!("{hmac}.{payload}.{signature}"),
        format!("{header}.{changed}.{signature}"),
        format!("{head}.{}", "A".repeat(86)),
        String::new(),
        "a.b".to_owned(),
        "\u{1F980}.\u{1F980}.\u{1F980}".to_owned(),
        lab.tokens.signing_key().sign(b"[]").unwrap(),
        lab.tokens.signing_key().sign(br#"{"iss":"x"}"#).unwrap(),
    ] {
        assert_eq!(lab.refusal(&forged), "invalid bearer token", "{forged}");
    }
    let elsewhere = lab.issue(json!({"audiences": ["vault"]})).await.unwrap();
    let refusal = lab.refusal(elsewhere["status"]["token"].as_str().unwrap());
    assert!(refusal.contains(r#"token audiences ["vault"] is invalid for the target audiences"#), "{refusal}");
}

#[tokio::test]
async fn token_requests_with_bad_input() {
    let lab = Lab::new();
    let check = async |spec: Value, code: u16, expect: &str| {
        let error = lab.issue(spec).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (code, expect));
    };
    check(
        json!({"expirationSeconds": 10}),
        422,
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes",
    )
    .await;
    let bound = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}});
    check(bound("Pod", "none", ""), 404, "pods \"none\" not found").await;
    check(bound("ConfigMap", "x", ""), 400, "cannot bind token to object of type /v1, Kind=ConfigMap").await;
    check(
        bound("Pod", "p", "old"),
        409,
        "Operation cannot be fulfilled on Pod \"p\": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated",
    )
    .await;
    lab.objects.put("", "pods", pod("ns", "q", "n1", json!({"serviceAccountName": "default"})));
    check(
        bound("Pod", "q", ""),
        400,
        "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.",
    )
    .await;
    let got = lab.issue(json!({})).await.unwrap();
    assert_eq!(got["spec"], json!({"audiences": [ISSUER], "expirationSeconds": 3600, "boundObjectRef": null}));
    assert_eq!(got["status"]["expirationTimestamp"], "2026-11-25T01:00:00Z");
    let other = json!({"metadata": {"name": "other"}, "spec": {"expirationSeconds": 3600}});
    let refused = lab.tokens.issue(&account("robot"), other, &*lab.objects).await.unwrap_err();
    let expect = "TokenRequest.authentication.k8s.io \"robot\" is invalid: metadata.name: Invalid value: \"other\": must match the service account name if specified";
    assert_eq!((refused.code, refused.message.as_str()), (422, expect));
}

/// The authenticator over RBAC, with a real PKI in a temporary directory.
fn authentication(lab: &Lab, pki: &crate::pki::Pki) -> Authentication {
    let rbac = Arc::new(Rbac::new(lab.objects.clone()));
    let certificates = CertificateAuthenticator::new(pki.client_certificates().unwrap(), lab.clock.clone());
    Authentication::new(certificates, lab.tokens.clone(), Arc::new(AuthorizerChain::new(vec![("rbac", rbac)])))
}

struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn pki(lab: &Lab) -> (crate::pki::Pki, Directory) {
    let directory = std::env::temp_dir().join(format!("holdfast-authn-{}", base::id::uid(&mut base::OsRng)));
    let config = crate::pki::PkiConfig { directory: directory.clone(), names: vec![], addresses: vec![] };
    (crate::pki::Pki::open(config, lab.clock.clone()).unwrap(), Directory(directory))
}

fn head(path: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn peer(credential: &crate::pki::Credential) -> PeerCertificates {
    use rustls::pki_types::pem::PemObject;
    let pem = credential.certificate_pem.as_bytes();
    PeerCertificates(rustls::pki_types::CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect())
}

#[tokio::test]
async fn who_a_request_comes_from() {
    let lab = Lab::new();
    let ((ours, _a), (foreign, _b)) = (pki(&lab), pki(&lab));
    let authentication = authentication(&lab, &ours);
    let token = format!("Bearer {}", lab.pod_token(600).await);
    let encoded = BASE64_URL_SAFE_NO_PAD.encode(token.trim_start_matches("Bearer "));
    let websocket = format!("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}");
    let robot = "system:serviceaccount:ns:robot";
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Option<&'a crate::pki::Pki>, Option<&'a str>);
    let cases: [Case<'_>; 10] = [
        ("/api", vec![], None, None),
        ("/version", vec![], None, None),
        ("/healthz", vec![], None, Some(ANONYMOUS)),
        ("/readyz", vec![], None, Some(ANONYMOUS)),
        ("/api", vec![], Some(&ours), Some("kubernetes-admin")),
        ("/api", vec![], Some(&foreign), None),
        ("/api", vec![("authorization", &token)], Some(&foreign), Some(robot)),
        ("/healthz", vec![("authorization", "Bearer rubbish")], None, None),
        ("/api", vec![("authorization", "Basic YWRtaW46YWRtaW4=")], None, None),
        ("/api", vec![("sec-websocket-protocol", &websocket)], None, Some(robot)),
    ];
    for (path, headers, certificate, expect) in cases {
        let mut parts = head(path, &headers);
        if let Some(of) = certificate {
            parts.extensions.insert(peer(&of.admin().unwrap()));
        }
        let got = authentication.authenticate(&parts).await;
        assert_eq!(got.as_ref().ok().map(|identity| identity.user.as_str()), expect, "{path} {headers:?}");
        if let Err(error) = got {
            assert_eq!((error.code, error.message.as_str()), (401, "Unauthorized"));
        }
    }
    let mut parts = head("/api", &[]);
    parts.extensions.insert(peer(&ours.admin().unwrap()));
    let admin = authentication.authenticate(&parts).await.unwrap();
    assert_eq!(admin.groups, ["system:masters", AUTHENTICATED]);
    assert!(admin.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    lab.clock.advance(Duration::from_secs(400 * 24 * 3600));
    assert!(authentication.authenticate(&parts).await.is_err(), "remembered certificates expire too");
}

#[tokio::test]
async fn impersonation_is_checked_thing_by_thing() {
    let lab = Lab::new();
    let rules = json!([
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["groups"], "resourceNames": ["devs"]},
        {"verbs": ["impersonate"], "apiGroups": [""], "resources": ["serviceaccounts"]},
        {"verbs": ["impersonate"], "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/a/b"]},
    ]);
    lab.objects.put(GROUP, "clusterroles", json!({"metadata": {"name": "r"}, "rules": rules}));
    let subject = json!({"kind": "User", "name": "system:serviceaccount:ns:robot"});
    let role = json!({"kind": "ClusterRole", "name": "r"});
    lab.objects.put(
        GROUP,
        "clusterrolebindings",
        json!({"metadata": {"name": "r"}, "roleRef": role, "subjects": [subject]}),
    );
    let (ours, _directory) = pki(&lab);
    let authentication = authentication(&lab, &ours);
    let token = format!("Bearer {}", lab.pod_token(600).await);
    let ask = async |headers: &[(&str, &str)]| {
        let headers = [&[("authorization", token.as_str())], headers].concat();
        authentication.authenticate(&head("/api", &headers)).await.map_err(|error| (error.code, error.message))
    };
    let bob = ask(&[("Impersonate-User", "bob"), ("Impersonate-Group", "devs"), ("Impersonate-Extra-A%2Fb", "x")])
        .await
        .unwrap();
    assert_eq!(
        (bob.user.as_str(), bob.groups.as_slice()),
        ("bob", ["devs".to_owned(), AUTHENTICATED.to_owned()].as_slice())
    );
    assert_eq!(bob.extra["a/b"], ["x"]);
    let account = ask(&[("Impersonate-User", "system:serviceaccount:a:b")]).await.unwrap();
    assert_eq!(account.groups, ["system:serviceaccounts", "system:serviceaccounts:a", AUTHENTICATED]);
    let refused = ask(&[("Impersonate-User", "bob"), ("Impersonate-Group", "system:masters")]).await.unwrap_err();
    assert_eq!(
        refused,
        (403, "groups \"system:masters\" is forbidden: User \"system:serviceaccount:ns:robot\" cannot impersonate resource \"groups\" in API group \"\" at the cluster scope".to_owned())
    );
    assert_eq!(ask(&[("Impersonate-User", "eve")]).await.unwrap_err().0, 403);
    assert_eq!(ask(&[("Impersonate-Group", "devs")]).await.unwrap_err().0, 400);
    assert_eq!(ask(&[("Impersonate-User", "bob"), ("Impersonate-Uid", "1")]).await.unwrap_err().0, 403);
}

#[tokio::test]
async fn reviews_and_discovery() {
    let lab = Lab::new();
    let reviews = reviews::IdentityReviews::new(lab.tokens.clone());
    let attributes = Attributes { identity: crate::authz::objects::user("alice", &["devs"]), ..Attributes::default() };
    let me = reviews.review("selfsubjectreviews", json!({}), &attributes).await.unwrap();
    assert_eq!(me["status"]["userInfo"], json!({"username": "alice", "groups": ["devs"]}));
    let token = lab.pod_token(600).await;
    let ask = async |spec: Value| reviews.review("tokenreviews", json!({"spec": spec}), &attributes).await;
    let good = ask(json!({"token": token})).await.unwrap();
    assert_eq!(good["status"]["authenticated"], true);
    assert_eq!(good["status"]["audiences"], json!([ISSUER]));
    assert_eq!(good["status"]["user"]["username"], "system:serviceaccount:ns:robot");
    let bad = ask(json!({"token": "x"})).await.unwrap();
    assert_eq!(bad["status"], json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}));
    assert_eq!(ask(json!({})).await.unwrap_err().code, 400);

    use crate::chain::PathHandler;
    use http_body_util::BodyExt;
    let discovery = oidc::OpenIdDiscovery::new(lab.tokens.clone());
    let get = async |path: &str| {
        let response = discovery.serve(&head(path, &[])).await?;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice::<Value>(&bytes).ok()
    };
    assert_eq!(get("/.well-known/openid-configuration").await.unwrap()["issuer"], ISSUER);
    let keys = get("/openid/v1/jwks").await.unwrap();
    assert_eq!(keys["keys"][0]["kid"], lab.tokens.signing_key().key_id());
    assert_eq!(BASE64_URL_SAFE_NO_PAD.decode(keys["keys"][0]["x"].as_str().unwrap()).unwrap().len(), 32);
    assert!(get("/elsewhere").await.is_none());
}
