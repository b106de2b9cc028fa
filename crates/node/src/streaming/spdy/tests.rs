//! Two ends over an in-memory pipe.

use super::*;

fn pair() -> (Connection, Connection) {
    let (near, far) = tokio::io::duplex(4096);
    (Connection::start(near, Role::Client), Connection::start(far, Role::Server))
}

async fn read_all(mut input: mpsc::Receiver<Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(chunk) = input.recv().await {
        out.extend_from_slice(&chunk);
    }
    out
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut client, mut server) = pair();
    let near = client.open(Headers::new([("streamType", "stdin")])).await.unwrap();
    near.output.write(Bytes::from_static(b"to the server")).await.unwrap();
    near.output.finish().await.unwrap();
    let far = server.accept().await.unwrap();
    assert_eq!(far.headers.get("streamType"), Some("stdin"));
    assert_eq!(read_all(far.input).await, b"to the server");
    far.output.write(Bytes::from_static(b"and back")).await.unwrap();
    far.output.finish().await.unwrap();
    assert_eq!(read_all(near.input).await, b"and back");
    // Closed in both directions: forgotten on both sides.
    assert!(client.shared.lock().is_empty());
}

#[tokio::test]
async fn many_streams_and_large_data() {
    let (mut client, mut server) = pair();
    let big = Bytes::from(vec![7; 1_000_000]);
    let mut readers = Vec::new();
    for number in 0..5 {
        let near = client.open(Headers::new([("n", &number.to_string())])).await.unwrap();
        let far = server.accept().await.unwrap();
        assert_eq!(far.headers.get("n"), Some(number.to_string().as_str()));
        readers.push(tokio::spawn(read_all(far.input)));
        let big = big.clone();
        tokio::spawn(async move {
            near.output.write(big).await.unwrap();
            near.output.finish().await.unwrap();
        });
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), big);
    }
}

#[tokio::test]
async fn a_reset_ends_both_directions() {
    let (mut client, mut server) = pair();
    let near = client.open(Headers::default()).await.unwrap();
    let far = server.accept().await.unwrap();
    far.output.reset().await.unwrap();
    assert_eq!(read_all(near.input).await, b"");
}

#[tokio::test]
async fn the_end_of_one_side_ends_the_other() {
    let (mut client, mut server) = pair();
    let near = client.open(Headers::default()).await.unwrap();
    let far = server.accept().await.unwrap();
    far.output.write(Bytes::from_static(b"last words")).await.unwrap();
    server.close().await;
    assert_eq!(read_all(near.input).await, b"last words");
    assert!(client.accept().await.is_none());
    let (client, mut server) = pair();
    drop(client);
    assert!(server.accept().await.is_none());
}

#[tokio::test]
async fn pings_are_answered_and_rubbish_ends_the_connection() {
    use tokio::io::AsyncReadExt;
    let (mut near, far) = tokio::io::duplex(4096);
    let mut server = Connection::start(far, Role::Server);
    near.write_all(&frames::ping(1)).await.unwrap();
    let mut echo = [0; 12];
    near.read_exact(&mut echo).await.unwrap();
    assert_eq!(echo, *frames::ping(1));
    // A stream with an even number is not a client's.
    let block = HeaderCompressor::new().compress(&Headers::default()).unwrap();
    near.write_all(&frames::syn_stream(2, block.len())).await.unwrap();
    near.write_all(&block).await.unwrap();
    let mut reset = [0; 16];
    near.read_exact(&mut reset).await.unwrap();
    assert_eq!(reset, *frames::rst_stream(2, RST_PROTOCOL_ERROR));
    near.write_all(&[0xff; 64]).await.unwrap();
    assert!(server.accept().await.is_none());
}
