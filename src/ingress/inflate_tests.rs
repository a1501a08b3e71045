//! Each coding, alone and stacked; what is cut, damaged or blown up.

use super::*;
use http::HeaderValue;
use proptest::prelude::*;
use std::io::Write;

fn pack(coding: Coding, plain: &[u8]) -> Vec<u8> {
    let level = flate2::Compression::default();
    match coding {
        Coding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Coding::Zstd => zstd::stream::encode_all(plain, 3).unwrap(),
        Coding::Brotli => brotli_of_at_most_64_kib(plain),
    }
}

/// There is no brotli encoder among our crates; one uncompressed meta-block (RFC 7932, section 9.2) is easily written.
fn brotli_of_at_most_64_kib(plain: &[u8]) -> Vec<u8> {
    if plain.is_empty() {
        return vec![0x06];
    }
    // WBITS = 16 (one bit 0), ISLAST = 0, MNIBBLES = 4 (two bits 0), MLEN - 1 (16 bits), ISUNCOMPRESSED = 1.
    let head = (u32::try_from(plain.len() - 1).unwrap() << 4) | (1 << 20);
    let mut packed = head.to_le_bytes()[..3].to_vec();
    packed.extend_from_slice(plain);
    packed.push(0x03); // ISLAST = 1, ISLASTEMPTY = 1
    packed
}

const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];
const MIB: usize = 1024 * 1024;

fn header(value: &'static str) -> HeaderMap {
    [(CONTENT_ENCODING, HeaderValue::from_static(value))].into_iter().collect()
}

#[test]
fn every_coding_gives_back_what_was_packed() {
    for coding in ALL {
        for plain in [&b""[..], b"{}", &[b'x'; 60_000]] {
            let packed = Bytes::from(pack(coding, plain));
            assert_eq!(inflate(packed, &[coding], MIB, 100), Ok(Bytes::copy_from_slice(plain)), "{coding:?}");
        }
    }
}

#[test]
fn raw_deflate_without_the_zlib_header_is_taken_too() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"hello hello hello").unwrap();
    let packed = Bytes::from(encoder.finish().unwrap());
    assert_eq!(inflate(packed, &[Coding::Deflate], MIB, 100), Ok(Bytes::from_static(b"hello hello hello")));
}

#[test]
fn stacked_codings_are_undone_last_first() {
    let packed = pack(Coding::Zstd, &pack(Coding::Gzip, b"inside"));
    let undone = inflate(packed.into(), &[Coding::Gzip, Coding::Zstd], MIB, 100);
    assert_eq!(undone, Ok(Bytes::from_static(b"inside")));
}

#[test]
fn header_values_name_codings_in_every_spelling_and_nothing_else() {
    for (sentence, value, expected) in [
        ("one", "gzip", Some(vec![Coding::Gzip])),
        ("the old name, any case", "X-GZip", Some(vec![Coding::Gzip])),
        ("identity is no coding", "identity", Some(vec![])),
        ("an empty value is none", "", Some(vec![])),
        ("a list keeps its order", "deflate, br", Some(vec![Coding::Deflate, Coding::Brotli])),
        ("three are the most", "gzip, gzip, zstd", Some(vec![Coding::Gzip, Coding::Gzip, Coding::Zstd])),
        ("four are too many", "gzip, gzip, gzip, gzip", None),
        ("an unknown one", "compress", None),
        ("an unknown one among known ones", "gzip, sdch", None),
    ] {
        assert_eq!(codings(&header(value)), expected, "{sentence}");
    }
    let mut two = header("gzip");
    two.append(CONTENT_ENCODING, HeaderValue::from_static("br"));
    assert_eq!(codings(&two), Some(vec![Coding::Gzip, Coding::Brotli]), "two header lines are one list");
}

#[test]
fn a_bomb_is_stopped_by_the_size_and_by_the_ratio() {
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
        let bomb = Bytes::from(pack(coding, &vec![0; 8 * MIB]));
        assert_eq!(
            inflate(bomb.clone(), &[coding], MIB, u32::MAX),
            Err(InflateError::TooLarge),
            "{coding:?}: size"
        );
        assert_eq!(inflate(bomb, &[coding], 64 * MIB, 10), Err(InflateError::TooLarge), "{coding:?}: ratio");
    }
}

#[test]
fn a_brotli_bomb_is_stopped_and_a_window_that_only_a_bomb_needs_is_refused() {
    // 64 MiB of zeros in the largest window of the standard, as the reference encoder packs them.
    let bomb = "cfffff7ff82700e2b14020f7fe9ffffffff04f00c4610180eefd3fffffffe19f0088c32200ddfbfffcffffc73f0110870500baf7ff";
    let bomb = Bytes::from(hex::decode(bomb).unwrap());
    assert_eq!(inflate(bomb, &[Coding::Brotli], MIB, 100), Err(InflateError::TooLarge));
    // Ten bytes in a window of 1 GiB, which is no part of the standard: the decoder would fill it before we see a byte.
    let packed = [&[0x11, 30, 18, 0, 2][..], b"0123456789", &[3]].concat();
    assert_eq!(inflate(packed.into(), &[Coding::Brotli], MIB, 100), Err(InflateError::Broken));
}

#[test]
fn exactly_the_most_is_allowed_and_one_more_is_not() {
    for coding in ALL {
        let packed = Bytes::from(pack(coding, &[7; 1000]));
        assert!(inflate(packed.clone(), &[coding], 1000, 100).is_ok(), "{coding:?}");
        assert_eq!(inflate(packed, &[coding], 999, 100), Err(InflateError::TooLarge), "{coding:?}");
    }
}

#[test]
fn a_cut_body_is_broken_at_every_byte() {
    for coding in ALL {
        let packed = Bytes::from(pack(coding, b"{\"some\":\"text, some text, some text\"}"));
        for cut in 1..packed.len() {
            let undone = inflate(packed.slice(..cut), &[coding], MIB, 100);
            assert_eq!(undone, Err(InflateError::Broken), "{coding:?} cut at {cut} of {}", packed.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_bytes_never_panic_and_never_exceed_the_bound(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for coding in ALL {
            if let Ok(plain) = inflate(Bytes::from(bytes.clone()), &[coding], 5000, 100) {
                prop_assert!(plain.len() <= 5000);
            }
        }
    }
}
