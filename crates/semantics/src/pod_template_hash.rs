//! The hash of a pod template, as it appears in names and in the labels `pod-template-hash` and
//! `controller-revision-hash`: a template (and a collision count) -> up to ten safe letters.
//!
//! Equal templates give equal hashes in every build and on every machine; absent and empty fields count as one. The
//! letters are those of generated names, so no words arise. It is not upstream's value: that one hashes a debug print.

use serde::Serialize;
use serde_json::Value;

const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// The hash of `template`; a `collision_count` gives another hash for the same template.
pub fn pod_template_hash<T: Serialize>(template: &T, collision_count: Option<i32>) -> String {
    let value = serde_json::to_value(template).unwrap_or_default();
    let mut hash = Fnv(FNV_OFFSET);
    hash.value(&value);
    if let Some(count) = collision_count {
        hash.bytes(&count.to_le_bytes());
    }
    safe_letters(&hash.0.to_string())
}

/// Each character of `text` replaced by one of the letters of generated names.
pub fn safe_letters(text: &str) -> String {
    text.bytes().map(|b| char::from(LETTERS[usize::from(b) % LETTERS.len()])).collect()
}

struct Fnv(u32);

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(FNV_PRIME);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                self.bytes(b"{");
                for (key, value) in map.iter().filter(|(_, value)| !is_empty(value)) {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(value);
                }
                self.bytes(b"}");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                for item in items {
                    self.value(item);
                    self.bytes(b",");
                }
                self.bytes(b"]");
            }
            scalar => self.bytes(scalar.to_string().as_bytes()),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_templates_hash_equal_and_collisions_differ() {
        let a = json!({"spec": {"containers": [{"name": "a", "image": "b"}]}});
        let b = json!({"metadata": null, "spec": {"containers": [{"name": "a", "image": "b", "env": []}]}});
        let c = json!({"spec": {"containers": [{"name": "a", "image": "c"}]}});
        assert_eq!(pod_template_hash(&a, None), pod_template_hash(&b, None));
        assert_ne!(pod_template_hash(&a, None), pod_template_hash(&c, None));
        assert_ne!(pod_template_hash(&a, None), pod_template_hash(&a, Some(1)));
        assert!(pod_template_hash(&a, None).bytes().all(|b| LETTERS.contains(&b)));
    }

    #[test]
    fn the_hash_is_the_same_on_every_machine() {
        let hash = pod_template_hash(&json!({"a": 1}), None);
        assert_eq!(hash, pod_template_hash(&json!({"a": 1}), None));
        expect_test::expect!["5b8f75cb99"].assert_eq(&hash);
    }
}
