//! Identifiers: UIDs of objects and the random end of generated names.

use crate::Rng;

/// Letters that Kubernetes uses for generated names: no vowels (no words arise), none that look alike.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A random (version 4) UUID in its text form, as in `metadata.uid`.
pub fn uid(rng: &mut dyn Rng) -> String {
    let mut b = [0u8; 16];
    rng.fill(&mut b);
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex = b.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `length` random letters for a generated name; the API server appends 5 to `metadata.generateName`.
pub fn name_suffix(rng: &mut dyn Rng, length: usize) -> String {
    (0..length).map(|_| NAME_LETTERS[rng.below(NAME_LETTERS.len() as u64) as usize] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededRng;

    #[test]
    fn uid_is_a_version_4_uuid() {
        let id = uid(&mut SeededRng::new(1));
        assert_eq!(id.len(), 36);
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn name_suffix_uses_only_the_known_letters() {
        let s = name_suffix(&mut SeededRng::new(2), 500);
        assert_eq!(s.len(), 500);
        assert!(s.bytes().all(|b| NAME_LETTERS.contains(&b)));
    }
}
