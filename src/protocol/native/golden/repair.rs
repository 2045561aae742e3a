//! Examples of what replicas say when they compare themselves, or close a partition's past.

use super::super::{Answer, Ask, Digests, Key, PartitionDigest, PrintsOf, Roots, Scope, SumsOf};
use super::{Pin, VERSION_OF_7, answer, ask};
use crate::base::hlc::Version;

const SCOPE: Scope = Scope { salt: 300, above: VERSION_OF_7 };

pub(super) fn asks_of_repair() -> Vec<Pin> {
    vec![
        ask(
            "Ask::Digests",
            Ask::Digests(Digests { node: "n1", partitions: &[1, 0x80], recent: true }),
            "0a 00 00 00 07 01 09 02 6e 31 02 01 80 01",
        ),
        ask(
            "Ask::Sums",
            Ask::Sums(SumsOf { partition: 3, scope: SCOPE, depth: 6, ranges: vec![0, 9], sums: &[1, 2] }),
            "11 00 00 00 07 01 0a 03 ac 02 80 80 1c 09 06 02 00 09 02 01 02",
        ),
        ask(
            "Ask::Prints",
            Ask::Prints(PrintsOf {
                partition: 3,
                scope: SCOPE,
                depth: 8,
                ranges: vec![5],
                from: 300,
                to: Some(301),
                prints: &[1, 2],
            }),
            "15 00 00 00 07 01 0b 03 ac 02 80 80 1c 09 08 01 05 ac 02 01 ad 02 02 01 02",
        ),
        ask(
            "Ask::Settles",
            Ask::Settles { partitions: &[1, 0x80], routes: vec![300, 1], up_to: VERSION_OF_7 },
            "0e 00 00 00 07 01 14 02 01 80 02 ac 02 01 80 80 1c 09",
        ),
        ask(
            "Ask::Settle",
            Ask::Settle { partitions: &[1], routes: vec![300], up_to: VERSION_OF_7 },
            "0c 00 00 00 07 01 15 01 01 01 ac 02 80 80 1c 09",
        ),
        ask(
            "Ask::Roots",
            Ask::Roots(Roots { partitions: &[1, 0x80], recent: false, salt: 300, width: 16, sums: &[1, 2] }),
            "0d 00 00 00 07 01 16 02 01 80 00 ac 02 10 02 01 02",
        ),
    ]
}

pub(super) fn answers_of_repair() -> Vec<Pin> {
    let digest = PartitionDigest { digest: 255, floor: VERSION_OF_7, settled: Version::ZERO, evicted: VERSION_OF_7 };
    vec![
        answer(
            "Answer::Digests",
            Answer::Digests(vec![Some(digest), None]),
            "12 00 00 00 08 01 07 02 01 ff 01 80 80 1c 09 00 00 80 80 1c 09 00",
        ),
        answer("Answer::Apart", Answer::Apart { compared: 64, apart: vec![0, 9] }, "07 00 00 00 08 01 08 40 02 00 09"),
        answer(
            "Answer::Unmatched",
            Answer::Unmatched { versions: vec![(Key(b"k"), VERSION_OF_7)], lacking: vec![2], end: Some(300) },
            "0f 00 00 00 08 01 09 01 01 6b 80 80 1c 09 01 02 01 ac 02",
        ),
    ]
}
