use super::*;
use proptest::prelude::*;

const KIND: Kind =
    Kind { name: "thing", most: 1 << 20, durability: Durability::DaemonDeath, once_plain: true };
const NOW: &str = "boot-now";

fn record(body: &[u8]) -> Vec<u8> {
    encode("thing", "a", NOW, body)
}

fn former_record(boot: &str, body: &str, sum: &str) -> Vec<u8> {
    format!("slipway-record 1 {boot} {} {sum}\n{body}", body.len()).into_bytes()
}

proptest! {
    #[test]
    fn every_flipped_bit_is_noticed(
        // A body is JSON, which ends with no zero.
        body in ".{0,200}[!-~]", at in any::<prop::sample::Index>(), bit in 0_u8..8, now in any::<bool>(),
    ) {
        let mut bytes = encode("thing", "a", if now { NOW } else { "another" }, body.as_bytes());
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let found = decode(&KIND, "a", NOW, &bytes);
        prop_assert!(found.is_err(), "{found:?}");
        prop_assert!(!found.unwrap_err().torn, "no power cut flips a bit");
    }

    #[test]
    fn every_truncation_and_extension_is_noticed(
        body in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        more in prop::collection::vec(any::<u8>(), 1..50),
    ) {
        let bytes = record(&body);
        prop_assert!(decode(&KIND, "a", NOW, &bytes[..at.index(bytes.len())]).is_err());
        let extended = [bytes, more].concat();
        prop_assert!(decode(&KIND, "a", NOW, &extended).is_err());
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0_u8..4) {
        let _ = decode(&KIND, "a", NOW, &bytes);
        let headed = [format!("slipway-record {version} ").into_bytes(), bytes].concat();
        prop_assert!(decode(&KIND, "a", NOW, &headed).is_err());
    }

    /// Bytes that have all the checksums of a record, whatever they say: only the one way to write a record is accepted.
    #[test]
    fn whatever_is_accepted_is_what_would_be_written(
        header in prop_oneof![
            "[ -~]{0,60}",
            "thing [a-z-]{0,9} [0-9]{1,3} a",
            ("(thing|other)", "boot-[a-z]{0,3}", "[+0]{0,1}[0-9]{1,2}", "[ab\\n]{0,2}").prop_map(
                |(kind, boot, length, name)| format!("{kind} {boot} {length} {name}")
            ),
        ],
        body in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let covered = [format!("{header}\n").as_bytes(), &body].concat();
        let (sum, short) = (hex(&Sha256::digest(&covered)), short(header.as_bytes()));
        let bytes = [CURRENT, format!("{sum} {short}\n").as_bytes(), &covered].concat();
        if let Ok(found) = decode(&KIND, "a", NOW, &bytes) {
            let again = encode(KIND.name, "a", found.boot.unwrap_or_default(), found.body);
            prop_assert_eq!(bytes, again);
        }
    }

    #[test]
    fn every_flipped_bit_of_the_body_of_an_older_form_is_noticed(
        body in "[a-z]{1,100}", at in any::<prop::sample::Index>(), bit in 0_u8..8,
    ) {
        for sum in [fnv(body.as_bytes()), hex(&Sha256::digest(&body))] {
            let mut bytes = former_record(NOW, &body, &sum);
            let from = bytes.len() - body.len();
            bytes[from + at.index(body.len())] ^= 1 << bit;
            prop_assert!(decode(&KIND, "a", NOW, &bytes).is_err());
        }
    }
}

#[test]
fn a_record_is_bound_to_its_kind_and_its_name() {
    let bytes = record(b"{}");
    let whole = Decoded { body: b"{}", boot: Some(NOW) };
    assert_eq!(decode(&KIND, "a", NOW, &bytes), Ok(whole));
    let error = decode(&KIND, "b", NOW, &bytes).unwrap_err();
    assert_eq!(error.reason, "it is that of the thing a, under another name");
    assert!(decode(&Kind { name: "other", ..KIND }, "a", NOW, &bytes).is_err());
    let spaced = encode("thing", "a b 3", NOW, b"{}");
    assert!(decode(&KIND, "a b 3", NOW, &spaced).is_ok());
}

#[test]
fn records_of_older_forms_are_read() {
    let body = "{\"x\":1}";
    let sha = hex(&Sha256::digest(body));
    let with_line_feed = [former_record(NOW, body, &sha), b"\n".to_vec()].concat();
    for bytes in
        [former_record(NOW, body, &fnv(body.as_bytes())), former_record(NOW, body, &sha), with_line_feed]
    {
        let found = decode(&KIND, "a", NOW, &bytes).unwrap();
        assert_eq!((found.body, found.boot), (body.as_bytes(), Some(NOW)));
    }
    assert_eq!(decode(&KIND, "a", NOW, b"[1]").unwrap().boot, None);
    assert!(decode(&Kind { once_plain: false, ..KIND }, "a", NOW, b"[1]").is_err());
}

#[test]
fn a_record_that_a_power_cut_has_torn_is_told_from_a_damaged_one() {
    let torn = |bytes: &[u8]| decode(&KIND, "a", NOW, bytes).unwrap_err().torn;
    let other = encode("thing", "a", "another", b"{\"word\":\"long\"}");
    let zeros = [&other[..other.len() - 3], &[0; 3]].concat();
    for bytes in [&b""[..], &[0; 512], &other[..other.len() - 1], &zeros] {
        assert!(torn(bytes), "{}", String::from_utf8_lossy(bytes));
    }
    let ours = record(b"{\"word\":\"long\"}");
    let mut flipped = other.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for bytes in [&ours[..ours.len() - 1], &flipped] {
        assert!(!torn(bytes), "{}", String::from_utf8_lossy(bytes));
    }
    let former = former_record("another", "{}", &fnv(b"{}"));
    assert!(torn(&former[..former.len() - 1]));
}

fn slot(folder: &Path) -> Slot {
    static KIND: Kind = self::KIND;
    Slot::new(&KIND, "a", folder.join("record"), folder.join("copies/copy"))
}

#[test]
fn a_damaged_or_absent_record_is_written_again_from_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    slot.write(&vec![1, 2, 3]).unwrap();
    let whole = fs::read(slot.path()).unwrap();
    let damages: [&dyn Fn(&Path); 4] = [
        &|path| fs::remove_file(path).unwrap(),
        &|path| fs::write(path, "").unwrap(),
        &|path| fs::write(path, &whole[..whole.len() / 2]).unwrap(),
        &|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
    ];
    for damage in damages {
        damage(slot.path());
        assert_eq!(slot.read::<Vec<i32>>().unwrap().unwrap().value, [1, 2, 3]);
        let loaded = slot.take_up::<Vec<i32>>().unwrap().unwrap();
        assert_eq!(loaded.value, [1, 2, 3]);
        assert!(loaded.healed.is_some() && loaded.this_boot);
        assert_eq!(fs::read(slot.path()).unwrap(), whole);
        assert_eq!(slot.take_up::<Vec<i32>>().unwrap().unwrap().healed, None);
    }
}

#[test]
fn a_damaged_copy_is_written_again_and_never_stands_for_a_removed_record() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path());
    slot.write(&vec![1]).unwrap();
    fs::write(folder.path().join("copies/copy"), "x").unwrap();
    assert_eq!(slot.take_up::<Vec<i32>>().unwrap().unwrap().healed, None);
    fs::write(slot.path(), "x").unwrap();
    assert_eq!(slot.take_up::<Vec<i32>>().unwrap().unwrap().value, [1]);
    slot.remove().unwrap();
    slot.remove().unwrap();
    assert_eq!(slot.take_up::<Vec<i32>>().unwrap(), None);
    slot.write(&vec![1]).unwrap();
    for path in [slot.path(), &folder.path().join("copies/copy")] {
        let other = fs::read_to_string(path).unwrap().replace("thing ", "other ");
        fs::write(path, other).unwrap();
    }
    assert!(slot.take_up::<Vec<i32>>().is_err());
}
