//! ETags and the conditions that are made of them (RFC 9110, sections 8.8.3 and 13). An ETag is the version of a key, whole. Decides nothing
//! about a key: what a change requires is compared where it is executed. Tested below.

use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::refusal::Refusal;
use crate::base::hlc::Version;
use crate::base::item::Mode;

/// ETags one request may name.
const TAGS_MAX: usize = 64;

/// The ETag of a version, without its quotes.
fn text(version: Version) -> String {
    format!("{:x}-{:x}", version.time, version.origin)
}

/// The ETag of a version as headers carry it.
pub(super) fn etag(version: Version) -> String {
    format!("\"{}\"", text(version))
}

/// The version that an ETag of ours names; those of others match nothing.
fn version(opaque: &[u8]) -> Option<Version> {
    let (time, origin) = std::str::from_utf8(opaque).ok()?.split_once('-')?;
    let version = Version { time: u64::from_str_radix(time, 16).ok()?, origin: u32::from_str_radix(origin, 16).ok()? };
    (text(version).as_bytes() == opaque).then_some(version)
}

/// An ETag that a client named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag {
    is_weak: bool,
    version: Option<Version>,
}

/// What stands in an `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Tags {
    /// `*`: whatever is there.
    Any,
    /// One of these.
    These(Vec<Tag>),
}

impl Tags {
    /// Reads all lines of a header; `None` without any.
    fn of(headers: &HeaderMap, name: HeaderName) -> Result<Option<Self>, Refusal> {
        let lines: Vec<&[u8]> = headers.get_all(&name).map(|line| line.as_bytes().trim_ascii()).collect();
        match lines[..] {
            [] => return Ok(None),
            [b"*"] => return Ok(Some(Self::Any)),
            _ => {}
        }
        let mut tags = Vec::new();
        for line in lines {
            let read = read_list(line, &mut tags);
            read.ok_or_else(|| Refusal::Malformed(format!("`{name}` is `*` or up to {TAGS_MAX} ETags in quotes")))?;
        }
        if tags.is_empty() {
            return Err(Refusal::Malformed(format!("`{name}` names no ETag")));
        }
        Ok(Some(Self::These(tags)))
    }

    /// Whether it names this version, weakly or not.
    fn names(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag.version == Some(version)),
        }
    }
}

/// Appends the ETags of a list, in which elements may be empty. `None` if it is none, or together too many.
fn read_list(mut line: &[u8], tags: &mut Vec<Tag>) -> Option<()> {
    loop {
        line = line.trim_ascii_start();
        match line {
            [] => return Some(()),
            [b',', rest @ ..] => {
                line = rest;
                continue;
            }
            _ => {}
        }
        let is_weak = line.starts_with(b"W/");
        let quoted = line.strip_prefix(b"W/").unwrap_or(line).strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', quoted)?;
        let (opaque, rest) = (&quoted[..end], quoted[end + 1..].trim_ascii_start());
        let is_allowed = |byte: &u8| *byte > b' ' && *byte != 0x7f;
        if !opaque.iter().all(is_allowed) || !matches!(rest, [] | [b',', ..]) || tags.len() == TAGS_MAX {
            return None;
        }
        tags.push(Tag { is_weak, version: version(opaque) });
        line = rest;
    }
}

/// What a change requires of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Requires {
    /// Nothing.
    Nothing,
    /// That something, or nothing, is there.
    Mode(Mode),
    /// That it has one of these versions.
    OneOf(Vec<Version>),
}

/// What the headers of a change require. ETags are compared strongly: weak ones match nothing.
pub(super) fn of_change(headers: &HeaderMap) -> Result<Requires, Refusal> {
    let wanted = Tags::of(headers, IF_MATCH)?;
    match (wanted, Tags::of(headers, IF_NONE_MATCH)?) {
        (_, Some(Tags::These(_))) => Err(Refusal::malformed("a change takes `if-none-match` with `*` only")),
        // Both there and not.
        (Some(_), Some(Tags::Any)) => Ok(Requires::OneOf(Vec::new())),
        (None, Some(Tags::Any)) => Ok(Requires::Mode(Mode::Add)),
        (Some(Tags::Any), None) => Ok(Requires::Mode(Mode::Replace)),
        (Some(Tags::These(tags)), None) => {
            Ok(Requires::OneOf(tags.iter().filter(|tag| !tag.is_weak).filter_map(|tag| tag.version).collect()))
        }
        (None, None) => Ok(Requires::Nothing),
    }
}

/// What the headers of a read ask for.
#[derive(Debug)]
pub(super) struct OfRead {
    wanted: Option<Tags>,
    known: Option<Tags>,
}

/// What becomes of a read that found something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is told.
    Tell,
    /// The client has it already.
    Known,
    /// It is not what the client wanted.
    Differs,
}

impl OfRead {
    /// Reads the headers.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        Ok(Self { wanted: Tags::of(headers, IF_MATCH)?, known: Tags::of(headers, IF_NONE_MATCH)? })
    }

    /// What becomes of a read that found this version.
    pub(super) fn judge(&self, version: Version) -> Verdict {
        let strongly = |tags: &Tags| match tags {
            Tags::Any => true,
            Tags::These(tags) => tags.contains(&Tag { is_weak: false, version: Some(version) }),
        };
        if self.wanted.as_ref().is_some_and(|tags| !strongly(tags)) {
            return Verdict::Differs;
        }
        if self.known.as_ref().is_some_and(|tags| tags.names(version)) { Verdict::Known } else { Verdict::Tell }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    const V: Version = Version { time: 0x19a, origin: 7 };

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, line) in lines {
            headers.append(name.clone(), HeaderValue::from_str(line).expect("a value"));
        }
        headers
    }

    fn change(lines: &[(HeaderName, &str)]) -> Option<Requires> {
        of_change(&headers(lines)).ok()
    }

    #[test]
    fn a_change_requires_what_its_headers_say() {
        let versions = |found: &[Version]| Some(Requires::OneOf(found.to_vec()));
        assert_eq!(change(&[]), Some(Requires::Nothing));
        assert_eq!(change(&[(IF_MATCH, "*")]), Some(Requires::Mode(Mode::Replace)));
        assert_eq!(change(&[(IF_NONE_MATCH, " * ")]), Some(Requires::Mode(Mode::Add)));
        assert_eq!(change(&[(IF_MATCH, "\"19a-7\"")]), versions(&[V]));
        let two = [V, Version { time: 1, origin: 2 }];
        assert_eq!(change(&[(IF_MATCH, ", \"19a-7\" ,,\"a,b\",\t\"1-2\",")]), versions(&two));
        assert_eq!(change(&[(IF_MATCH, "\"19a-7\""), (IF_MATCH, "\"1-2\"")]), versions(&two));
        for strange in ["W/\"19a-7\"", "\"\"", "\"019a-7\"", "\"19A-7\"", "\"+19a-7\"", "\"19a-100000007\"", "\"x\""] {
            assert_eq!(change(&[(IF_MATCH, strange)]), versions(&[]), "{strange}");
        }
        assert_eq!(change(&[(IF_MATCH, "\"19a-7\""), (IF_NONE_MATCH, "*")]), versions(&[]));
        for bad in ["19a-7", "\"19a-7", "*, \"19a-7\"", "\"a b\"", "w/\"1\"", "\"1\" \"2\"", "W/", "", ", ,"] {
            assert_eq!(change(&[(IF_MATCH, bad)]), None, "{bad}");
        }
        assert_eq!(change(&[(IF_NONE_MATCH, "\"19a-7\"")]), None);
        assert_eq!(change(&[(IF_MATCH, &"\"x\",".repeat(TAGS_MAX + 1))]), None);
    }

    #[test]
    fn a_read_is_told_unless_known_or_not_wanted() {
        let judge = |lines: &[(HeaderName, &str)]| OfRead::of(&headers(lines)).expect("ETags").judge(V);
        assert_eq!(judge(&[]), Verdict::Tell);
        for known in ["*", "\"19a-7\"", "W/\"19a-7\"", "\"x\", \"19a-7\""] {
            assert_eq!(judge(&[(IF_NONE_MATCH, known)]), Verdict::Known, "{known}");
        }
        assert_eq!(judge(&[(IF_NONE_MATCH, "\"19a-8\"")]), Verdict::Tell);
        assert_eq!(judge(&[(IF_MATCH, "\"19a-7\"")]), Verdict::Tell);
        for other in ["W/\"19a-7\"", "\"19a-8\""] {
            assert_eq!(judge(&[(IF_MATCH, other), (IF_NONE_MATCH, "*")]), Verdict::Differs, "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_version_reads_back_from_its_etag(time: u64, origin: u32) {
            let version = Version { time, origin };
            prop_assert_eq!(change(&[(IF_MATCH, &etag(version))]), Some(Requires::OneOf(vec![version])));
        }

        #[test]
        fn any_line_is_tags_or_refused(line in "[\\x20-\\x7e]{0,40}") {
            let _ = change(&[(IF_MATCH, &line)]);
        }
    }
}
