//! Messages of both codecs.

use super::*;

#[test]
fn messages() {
    for codec in [Codec::Binary, Codec::Base64] {
        let message = encode(3, b"text", codec).into_data();
        assert_eq!(decode(&message, codec), Some((3, Bytes::from_static(b"text"))));
    }
    assert_eq!(encode(1, b"hi", Codec::Base64), Message::text("1aGk="));
    assert_eq!(decode(&Bytes::new(), Codec::Binary), None);
    assert_eq!(decode(&Bytes::from_static(b"0not base64!"), Codec::Base64), None);
    assert_eq!(decode(&Bytes::from_static(b"\0aGk="), Codec::Base64), None);
}
