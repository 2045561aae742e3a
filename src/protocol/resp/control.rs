//! What `CLIENT` can say about clients: which of them, whether they are held up, whether they get replies. Plain facts; the connections
//! act on them. Tested below.

use bytes::Bytes;

/// Which connections `CLIENT LIST` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// Every one.
    All,
    /// Those with these ids, in this order.
    Ids(Vec<u64>),
    /// Those of this kind.
    Kind(ClientKind),
}

/// What `TYPE` tells clients apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientKind {
    /// Those that have subscribed to nothing.
    Normal,
    /// Those that have subscribed to something.
    PubSub,
    /// A kind of which there is none here.
    Nobody,
}

/// Which connections `CLIENT KILL` ends: those that fit all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KillFilter {
    /// Its id.
    pub id: Option<u64>,
    /// The client's address.
    pub addr: Option<Bytes>,
    /// The server's.
    pub laddr: Option<Bytes>,
    /// Its kind.
    pub kind: Option<ClientKind>,
    /// Whether the connection that asks stays.
    pub skip_me: bool,
    /// The form that names an address alone, which has an answer of its own.
    pub by_address: bool,
}

/// What `CLIENT PAUSE` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// How long.
    pub timeout_ms: u64,
    /// Whether reads go on.
    pub writes_only: bool,
}

/// Which replies a client wants to get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but the next.
    SkipNext,
}

impl KillFilter {
    /// Whether it means the connection with this id, the addresses of its client and of its server, and this kind.
    pub fn fits(&self, id: u64, (addr, laddr): (&str, &str), kind: ClientKind) -> bool {
        let same = |wanted: &Option<Bytes>, is: &str| wanted.as_ref().is_none_or(|wanted| &wanted[..] == is.as_bytes());
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.id.is_none_or(|wanted| wanted == id)
            && same(&self.addr, addr)
            && same(&self.laddr, laddr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_killed_that_fits_all_that_is_given() {
        let fits = |id, addr: Option<&'static str>, kind| {
            let filter = KillFilter { id, addr: addr.map(Bytes::from), kind, ..KillFilter::default() };
            filter.fits(7, ("127.0.0.1:5", "127.0.0.1:6"), ClientKind::Normal)
        };
        assert!(fits(None, None, None) && fits(Some(7), Some("127.0.0.1:5"), Some(ClientKind::Normal)));
        assert!(!fits(Some(7), Some("127.0.0.1:6"), None) && !fits(Some(8), None, None));
        assert!(!fits(Some(7), None, Some(ClientKind::PubSub)) && !fits(Some(7), None, Some(ClientKind::Nobody)));
    }
}
