//! Files that are not what was written.

use super::*;

/// A good database's file, and what was in it.
fn good() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let db = folder.open();
    fill(&db);
    db.close().expect("written");
    let bytes = fs::read(folder.file()).expect("file");
    (folder, bytes)
}

/// Opens these bytes: they are what was written, or replaced by nothing at all. Whether they are what was written.
fn opens(bytes: &[u8], expected: &Stats, what: &str) -> bool {
    let folder = Folder::new();
    fs::write(folder.file(), bytes).expect("writes");
    let db = folder.open();
    let entries = db.stats().entries;
    let kept = entries == expected.entries;
    assert!(kept || entries == Default::default(), "{what}: {entries:?}");
    if kept {
        let memory = NodeDb::memory(Config::recommended());
        fill(&memory);
        assert_eq!(contents(&db), contents(&memory), "{what}");
    }
    // Whatever it was, it can be written to.
    fill(&db);
    assert_eq!(db.close(), Ok(()), "{what}");
    kept
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_good_or_replaced() {
    let (folder, bytes) = good();
    let expected = folder.open().stats();
    let mut rng = Rng::new(5);
    let edges = [1, 8, 9, 10, 63, 64, 128, 319, 320, 511, 512, 4_095, 4_096, 4_097, bytes.len() - 1];
    let random: Vec<usize> = (0..60).map(|_| rng.below(bytes.len() as u64) as usize).collect();
    for len in edges.into_iter().chain(random) {
        opens(&bytes[..len], &expected, &format!("cut to {len} of {}", bytes.len()));
    }
    assert!(!opens(&[], &expected, "empty"));
    assert!(!opens(b"# not a database\n", &expected, "text"));
    assert!(!opens(&vec![0; 1 << 20], &expected, "zeros"));
    assert!(opens(&bytes, &expected, "whole"));
}

#[test]
fn a_file_with_flipped_bytes_is_good_or_replaced() {
    let (folder, bytes) = good();
    let expected = folder.open().stats();
    let mut rng = Rng::new(6);
    // The header decides how everything else is read, so it is sampled more densely.
    let header = (0..320).map(|at| (at, 0xff)).collect::<Vec<_>>();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let random = (0..200).map(|_| (used[rng.below(used.len() as u64) as usize], 1 << rng.below(8)));
    let (mut kept, mut replaced) = (0, 0);
    for (at, flip) in header.into_iter().step_by(5).chain(random) {
        let mut flipped = bytes.clone();
        flipped[at] ^= flip;
        if opens(&flipped, &expected, &format!("byte {at} ^ {flip:#x}")) { kept += 1 } else { replaced += 1 }
    }
    assert!(kept > 0 && replaced > 0, "{kept} kept, {replaced} replaced");
}
