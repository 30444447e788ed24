//! Hostile, odd and plain tars: what they become, and that they come back.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use proptest::prelude::*;

use super::*;
use crate::layer::skeleton::rebuild;

const BOUNDS: Bounds = Bounds { entries: 1000, bytes: 1 << 20 };

/// One entry of a test's tar: the name goes into the header as it is, however hostile.
struct Line<'a>(&'a str, ::tar::EntryType, &'a str, &'a [u8]);

const FILE: ::tar::EntryType = ::tar::EntryType::Regular;
const DIR: ::tar::EntryType = ::tar::EntryType::Directory;
const LINK: ::tar::EntryType = ::tar::EntryType::Symlink;
const HARD: ::tar::EntryType = ::tar::EntryType::Link;

/// A header of an entry with so much data, owned by the one who runs the test: others can't be given away.
fn header(kind: ::tar::EntryType, size: usize) -> ::tar::Header {
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size as u64);
    header.set_mode(if kind == DIR { 0o750 } else { 0o4711 });
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(1_000_000_000);
    header.set_cksum();
    header
}

fn tar(lines: &[Line<'_>]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for Line(name, kind, link, data) in lines {
        let mut header = header(*kind, data.len());
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn try_apply(tar: &[u8], below: Option<&Below>) -> (tempfile::TempDir, Result<(Contents, u64), Failure>) {
    let folder = tempfile::tempdir().unwrap();
    let applied = apply(tar, folder.path(), below, BOUNDS);
    (folder, applied)
}

fn reason(tar: &[u8]) -> String {
    match try_apply(tar, None).1 {
        Err(Failure::Rejected(reason)) => reason,
        other => panic!("not rejected: {other:?}"),
    }
}

/// A file of 64 KiB with data at its begin, in its middle and at its end, the rest holes, as GNU tar packs it.
#[test]
fn sparse_files_of_every_form_are_unpacked_and_their_tars_come_back() {
    let source = tempfile::tempdir().unwrap();
    let file = File::create(source.path().join("f")).unwrap();
    for (offset, data) in [(0, &b"begin"[..]), (1 << 20, &[7; 5000]), ((8 << 20) - 3, b"end")] {
        file.write_all_at(data, offset).unwrap();
    }
    // More parts than an old GNU header holds.
    for part in 0..40 {
        file.write_all_at(b"part", (2 << 20) + part * 65_536).unwrap();
    }
    drop(file);
    for form in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let packed = std::process::Command::new("tar")
            .args(["--create", "--sparse", "--file=-", "--directory"])
            .arg(source.path())
            .args(form)
            .args(["--numeric-owner", "f"])
            .output()
            .unwrap();
        assert!(packed.status.success(), "{form:?}: {packed:?}");
        assert!(packed.stdout.len() < 400 << 10, "{form:?}: the tar is not sparse");
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { entries: 10, bytes: 16 << 20 };
        let (contents, _) = apply(packed.stdout.as_slice(), folder.path(), None, bounds).unwrap();
        let unpacked = folder.path().join("fs/f");
        assert!(
            std::fs::read(&unpacked).unwrap() == std::fs::read(source.path().join("f")).unwrap(),
            "{form:?}"
        );
        assert!(std::fs::metadata(&unpacked).unwrap().blocks() < 1 << 11, "{form:?}: holes take room");
        let mut again = Vec::new();
        rebuild(folder.path(), contents.kept, &mut again).unwrap();
        assert!(again == packed.stdout, "{form:?}: the tar did not come back");
    }
}

#[test]
fn the_holes_of_a_sparse_file_count_as_unpacked() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let records = [("GNU.sparse.size", &b"1099511627776"[..]), ("GNU.sparse.map", b"0,4")];
    builder.append_pax_extensions(records).unwrap();
    builder.append_data(&mut header(FILE, 4), "f", &b"data"[..]).unwrap();
    assert!(reason(&builder.into_inner().unwrap()).contains("1048576 bytes"));
}

fn same_again(tar: &[u8]) -> tempfile::TempDir {
    let (folder, applied) = try_apply(tar, None);
    let (contents, size) = applied.unwrap();
    assert_eq!(size, tar.len() as u64);
    let mut again = Vec::new();
    rebuild(folder.path(), contents.kept, &mut again).unwrap();
    assert!(again == tar, "the tar did not come back");
    folder
}

#[test]
fn a_tar_comes_back_bit_for_bit() {
    let folder = same_again(&tar(&[
        Line("a/", DIR, "", b""),
        Line("a/f", FILE, "", b"content"),
        Line("a/link", LINK, "/etc/passwd", b""),
        Line("a/hard", HARD, "a/f", b""),
        Line("a/empty", FILE, "", b""),
        Line("a/.wh.gone", FILE, "", b""),
    ]));
    let stat = std::fs::metadata(folder.path().join("fs/a/f")).unwrap();
    assert_eq!((stat.permissions().mode() & 0o7777, stat.mtime(), stat.nlink()), (0o4711, 1_000_000_000, 2));
    let directory = std::fs::metadata(folder.path().join("fs/a")).unwrap();
    assert_eq!((directory.permissions().mode() & 0o7777, directory.mtime()), (0o750, 1_000_000_000));
    let gone = std::fs::symlink_metadata(folder.path().join("fs/a/gone")).unwrap();
    assert_eq!(gone.rdev(), 0);
}

#[test]
fn the_last_duplicate_wins_and_the_tar_still_comes_back() {
    let folder = same_again(&tar(&[
        Line("f", FILE, "", b"first"),
        Line("d/", DIR, "", b""),
        Line("d/g", FILE, "", b"within"),
        Line("f", FILE, "", b"second"),
        Line("hard", HARD, "f", b""),
        Line("d", FILE, "", b"a file now"),
        Line("f", FILE, "", b"third"),
    ]));
    assert_eq!(std::fs::read(folder.path().join("fs/f")).unwrap(), b"third");
    assert_eq!(std::fs::read(folder.path().join("fs/hard")).unwrap(), b"second");
    assert_eq!(std::fs::read(folder.path().join("fs/d")).unwrap(), b"a file now");
}

#[test]
fn a_tar_that_leaves_its_root_is_refused() {
    for lines in [
        vec![Line("../x", FILE, "", b"x")],
        vec![Line("a/../../x", FILE, "", b"x")],
        vec![Line("x", HARD, "../../etc/passwd", b"")],
        vec![Line("f", FILE, "", b""), Line("f/x", FILE, "", b"x")],
        vec![Line(".wh.", FILE, "", b"")],
        vec![Line(".wh...", FILE, "", b"")],
        vec![Line("l", LINK, "l", b""), Line("l/x", FILE, "", b"x")],
    ] {
        let reason = reason(&tar(&lines));
        assert!(!reason.is_empty());
    }
}

#[test]
fn absolute_names_and_names_with_dots_are_taken_from_the_layers_root() {
    let folder = same_again(&tar(&[
        Line("/etc/", DIR, "", b""),
        Line("/etc/x", FILE, "", b"x"),
        Line("etc/../y", FILE, "", b"y"),
        Line("hard", HARD, "/etc/../etc/x", b""),
        Line("/etc/.wh.gone", FILE, "", b""),
    ]));
    let read = |name: &str| std::fs::read(folder.path().join("fs").join(name)).unwrap();
    assert_eq!((read("etc/x"), read("y"), read("hard")), (b"x".to_vec(), b"y".to_vec(), b"x".to_vec()));
}

#[test]
fn a_link_out_of_the_root_leads_back_into_it() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let lines = [Line("l", LINK, target, b""), Line("l/x", FILE, "", b"x")];
    assert!(matches!(try_apply(&tar(&lines), None).1, Err(Failure::NeedsBelow)));
    let up = [Line("l", LINK, "../../../..", b""), Line("l/x", FILE, "", b"x")];
    let folder = same_again(&tar(&up));
    assert!(folder.path().join("fs/x").exists());
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let target = outside.path().to_str().unwrap();
    let folder = same_again(&tar(&[Line("f", LINK, target, b""), Line("f", FILE, "", b"mine")]));
    assert_eq!(std::fs::read(folder.path().join("fs/f")).unwrap(), b"mine");
    assert_eq!(std::fs::read(outside.path()).unwrap(), b"");
}

#[test]
fn limits_refuse_with_their_numbers() {
    let names: Vec<String> = (0..1001).map(|number| format!("f{number}")).collect();
    let lines: Vec<Line<'_>> = names.iter().map(|name| Line(name, FILE, "", b"")).collect();
    assert!(reason(&tar(&lines)).contains("1000 entries"));
    let large = vec![0_u8; 2 << 20];
    assert!(reason(&tar(&[Line("f", FILE, "", &large)])).contains("1048576 bytes"));
}

#[test]
fn a_cut_or_altered_tar_is_refused() {
    let whole = tar(&[Line("f", FILE, "", b"content"), Line("g", FILE, "", b"more")]);
    assert!(reason(&whole[..700]).contains("ends within"));
    let mut altered = whole;
    altered[0] ^= 1;
    assert!(reason(&altered).contains("checksum"));
}

#[test]
fn missing_parents_and_link_targets_come_from_below() {
    let (under, applied) = try_apply(
        &tar(&[
            Line("usr/", DIR, "", b""),
            Line("usr/lib/", DIR, "", b""),
            Line("usr/lib/old", FILE, "", b"old"),
            Line("lib", LINK, "usr/lib", b""),
        ]),
        None,
    );
    applied.unwrap();
    let lines = [
        Line("lib/new", FILE, "", b"new"),
        Line("lib/same", HARD, "lib/old", b""),
        Line("x/y", FILE, "", b"y"),
    ];
    assert!(matches!(try_apply(&tar(&lines), None).1, Err(Failure::NeedsBelow)));
    let below = Below { layers: vec![under.path().join("fs")] };
    let (over, applied) = try_apply(&tar(&lines), Some(&below));
    let (contents, _) = applied.unwrap();
    let files = over.path().join("fs");
    assert_eq!(std::fs::read(files.join("usr/lib/new")).unwrap(), b"new");
    assert_eq!(std::fs::read(files.join("usr/lib/same")).unwrap(), b"old");
    assert_eq!(std::fs::metadata(files.join("usr/lib")).unwrap().permissions().mode() & 0o7777, 0o750);
    assert_eq!(std::fs::metadata(files.join("x")).unwrap().permissions().mode() & 0o7777, 0o755);
    let mut again = Vec::new();
    rebuild(over.path(), contents.kept, &mut again).unwrap();
    assert_eq!(again, tar(&lines));
}

#[test]
fn a_whiteout_hides_what_lies_below_and_not_the_layers_own() {
    let folder = same_again(&tar(&[
        Line("f", FILE, "", b"mine"),
        Line(".wh.f", FILE, "", b""),
        Line(".wh.d", FILE, "", b""),
        Line("d/", DIR, "", b""),
        Line("d/x", FILE, "", b"x"),
    ]));
    assert_eq!(std::fs::read(folder.path().join("fs/f")).unwrap(), b"mine");
    let attributes = root::xattrs(&folder.path().join("fs/d")).unwrap();
    assert!(attributes.iter().any(|(name, value)| name == root::opaque_name().as_bytes() && value == b"y"));
}

#[test]
fn names_and_attributes_of_pax_are_honoured_but_for_overlays_own() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let mut builder = ::tar::Builder::new(Vec::new());
    let attributes =
        [("SCHILY.xattr.user.colour", &b"bl\nue"[..]), ("SCHILY.xattr.user.overlay.opaque", b"y")];
    builder.append_pax_extensions(attributes).unwrap();
    builder.append_data(&mut header(FILE, 4), "plain", &b"data"[..]).unwrap();
    builder.append_data(&mut header(DIR, 0), "d".repeat(120), &b""[..]).unwrap();
    builder.append_data(&mut header(FILE, 3), &long, &b"far"[..]).unwrap();
    let folder = same_again(&builder.into_inner().unwrap());
    assert_eq!(std::fs::read(folder.path().join("fs").join(&long)).unwrap(), b"far");
    let found = root::xattrs(&folder.path().join("fs/plain")).unwrap();
    let expected = vec![(b"user.colour".to_vec(), b"bl\nue".to_vec())];
    assert!(found == expected || found.is_empty(), "{found:?}"); // a tmpfs may be without user attributes
}

/// Parents that a tar leaves out were given up after a thousand names, as a loop of links.
#[test]
fn parents_as_deep_as_a_path_leads_are_made_where_a_tar_leaves_them_out() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let path = format!("{}/f", ["d"; 1950].join("/"));
    builder.append_data(&mut header(FILE, 3), &path, &b"far"[..]).unwrap();
    let tar = builder.into_inner().unwrap();
    let (folder, applied) = try_apply(&tar, Some(&Below::default()));
    applied.unwrap();
    assert_eq!(std::fs::read(folder.path().join("fs").join(path)).unwrap(), b"far");
    slipway_disk::walker::remove(&folder.path().join("fs"), &slipway_disk::walker::never).unwrap();
}

/// The entries that later ones of their layer replace are named in memory when its tar is rebuilt, which took gigabytes
/// for millions of them.
#[test]
fn a_layer_that_replaces_too_many_of_its_own_entries_is_refused() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let long = ["d".repeat(250).as_str(); 15].join("/");
    let count = MOVES_MAX / long.len() + 2;
    for _ in 0..count {
        builder.append_link(&mut header(LINK, 0), &long, "x").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { entries: 3 * count as u64, bytes: 1 << 30 };
    let tar = builder.into_inner().unwrap();
    match apply(tar.as_slice(), folder.path(), Some(&Below::default()), bounds) {
        Err(Failure::Rejected(reason)) => assert!(reason.contains("too many before it"), "{reason}"),
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn directories_get_their_times_when_all_is_written_and_no_file_of_them_stays() {
    let folder = same_again(&tar(&[
        Line("a/", DIR, "", b""),
        Line("a/b/", DIR, "", b""),
        Line("a/b/f", FILE, "", b"f"),
        Line("b", FILE, "", b"a file first"),
        Line("b/", DIR, "", b""),
        Line("a/b", FILE, "", b"a directory first"),
    ]));
    for name in ["a", "b"] {
        assert_eq!(std::fs::metadata(folder.path().join("fs").join(name)).unwrap().mtime(), 1_000_000_000);
    }
    let mut names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["fs", "kept", "skeleton"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_make_the_reader_panic(noise in proptest::collection::vec((0_usize..2048, any::<u8>()), 0..12)) {
        let mut bytes = tar(&[Line("a/", DIR, "", b""), Line("a/f", FILE, "", b"content")]);
        for (at, value) in noise {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        drop(try_apply(&bytes, None));
    }

    #[test]
    fn any_plain_tar_comes_back(files in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..1500), 0..8)) {
        let lines: Vec<Line<'_>> = files.iter().map(|(name, data)| Line(name, FILE, "", data)).collect();
        same_again(&tar(&lines));
    }
}
