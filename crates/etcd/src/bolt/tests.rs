//! A database written is read as it was; files that are something else, or damaged, are refused with the reason.

use std::io::Cursor;

use super::*;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// So many entries, some of which overflow a page.
fn entries(count: u32) -> Entries {
    let value = |n: u32| vec![n as u8; if n.is_multiple_of(97) { 10_000 } else { n as usize % 60 }];
    (0..count).map(|n| (n.to_be_bytes().to_vec(), value(n))).collect()
}

fn write(buckets: &[(&'static str, Entries)]) -> Vec<u8> {
    let stored = |entries: &Entries| {
        let boxed = entries.iter().cloned().map(|(key, value)| (key, Box::new(value) as Box<dyn Stored>));
        boxed.collect()
    };
    let buckets: Vec<Bucket<'_>> =
        buckets.iter().map(|(name, entries)| Bucket { name, entries: stored(entries) }).collect();
    let mut file = Vec::new();
    let bytes = write_database(&buckets, &mut file).unwrap();
    assert_eq!(bytes, file.len() as u64);
    file
}

fn read(file: &[u8], bucket: &str) -> Result<Entries, BoltError> {
    let mut reader = BoltReader::open(Cursor::new(file), file.len() as u64)?;
    let mut found = Vec::new();
    reader.each(bucket, &mut |key, value| {
        found.push((key.to_vec(), value.to_vec()));
        Ok(())
    })?;
    Ok(found)
}

#[test]
fn what_is_written_is_read_at_every_depth() {
    for count in [0, 1, 2, 100, 5_000, 40_000] {
        let file = write(&[("empty", Vec::new()), ("key", entries(count)), ("meta", entries(3))]);
        assert_eq!(read(&file, "key").unwrap(), entries(count), "{count}");
        assert_eq!(read(&file, "meta").unwrap(), entries(3));
        assert_eq!(read(&file, "empty").unwrap(), Vec::new());
        assert_eq!(read(&file, "missing").unwrap(), Vec::new());
    }
}

#[test]
fn the_second_meta_page_stands_in_for_the_first() {
    let mut file = write(&[("key", entries(100))]);
    file[30] ^= 1;
    assert_eq!(read(&file, "key").unwrap(), entries(100));
    file[4096 + 30] ^= 1;
    assert!(matches!(read(&file, "key"), Err(BoltError::NoDatabase(_))));
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let whole = write(&[("key", entries(400))]);
    for at in 0..whole.len() {
        // Headers and elements, and some of the data.
        if at % 4096 > 200 && at % 61 != 0 {
            continue;
        }
        for bits in [0xff, 0x01] {
            let mut damaged = whole.clone();
            damaged[at] ^= bits;
            // Values have no checksum of their own here: what counts is that reading ends.
            read(&damaged, "key").ok();
        }
    }
    for length in [0, 10, 80, 4096, 8192, whole.len() - 1] {
        assert!(read(&whole[..length], "key").is_err(), "{length}");
    }
}

#[test]
fn a_page_that_is_its_own_child_is_noticed() {
    let mut file = write(&[("key", entries(5_000))]);
    let branch = (2..file.len() / 4096).find(|page| file[page * 4096 + 8] == BRANCH as u8).unwrap();
    let child = branch * 4096 + PAGE_HEADER + 8;
    file[child..child + 8].copy_from_slice(&(branch as u64).to_le_bytes());
    assert!(matches!(read(&file, "key"), Err(BoltError::Damaged { what: "its tree has no end", .. })));
}
