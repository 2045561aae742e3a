//! What a connection answers by itself, without one.

use super::*;

fn session() -> Session {
    Session::new(7, "127.0.0.1:5".into(), "127.0.0.1:6".into(), Level::One, 1_000)
}

fn reply(session: &mut Session, command: SessionCommand) -> Value {
    let config = [("maxmemory".to_owned(), "0".to_owned()), ("maxmemory-policy".to_owned(), "allkeys-lru".to_owned())];
    match session.execute(command, &Facts { now_us: 5_000_042, config: &config }) {
        Outcome::Reply(value) => value,
        other => panic!("{other:?}"),
    }
}

fn shown(value: &Value, wire: Wire) -> String {
    let mut out = Vec::new();
    value.encode(wire, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn hello_switches_the_version_and_says_who_we_are() {
    let mut session = session();
    let hello = Hello { wire: Some(Wire::Resp3), name: Some("bob".into()), auth: None };
    let value = reply(&mut session, SessionCommand::Hello(hello));
    assert_eq!(session.wire(), Wire::Resp3);
    assert_eq!(
        shown(&value, session.wire()),
        "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n\
         $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
    );
    assert_eq!(reply(&mut session, SessionCommand::ClientName), Value::bulk("bob"));
    assert_eq!(reply(&mut session, SessionCommand::Reset), Value::simple("RESET"));
    assert_eq!(session.wire(), Wire::Resp2);
    assert_eq!(reply(&mut session, SessionCommand::ClientName), Value::Null);
}

#[test]
fn a_wrong_user_is_refused_and_leaves_the_version() {
    let mut session = session();
    let hello = Hello { wire: Some(Wire::Resp3), auth: Some(("x".into(), "y".into())), name: None };
    let value = reply(&mut session, SessionCommand::Hello(hello));
    assert_eq!(value, Value::error("WRONGPASS invalid username-password pair or user is disabled."));
    assert_eq!(session.wire(), Wire::Resp2);
    let default = SessionCommand::Auth { user: Some("default".into()), password: "x".into() };
    assert_eq!(reply(&mut session, default), Value::OK);
}

#[test]
fn a_level_lasts_until_reset() {
    let mut session = session();
    assert_eq!(reply(&mut session, SessionCommand::Consistency(Some(Level::All))), Value::OK);
    assert_eq!(reply(&mut session, SessionCommand::Consistency(None)), Value::bulk("all"));
    reply(&mut session, SessionCommand::Reset);
    assert_eq!(session.level(), Level::One);
}

#[test]
fn a_client_that_wants_no_replies_does_not_skip_one() {
    let mut session = session();
    let facts = Facts { now_us: 0, config: &[] };
    for (asked, outcome, after) in [
        (Replies::SkipNext, Outcome::Nothing, Replies::SkipNext),
        (Replies::Off, Outcome::Nothing, Replies::Off),
        (Replies::SkipNext, Outcome::Nothing, Replies::Off),
        (Replies::On, Outcome::Reply(Value::OK), Replies::On),
    ] {
        assert_eq!(session.execute(SessionCommand::ClientReply(asked), &facts), outcome);
        assert_eq!(session.replies(), after);
    }
}

#[test]
fn quitting_answers_first() {
    let facts = Facts { now_us: 0, config: &[] };
    assert_eq!(session().execute(SessionCommand::Quit, &facts), Outcome::Close(Value::OK));
}

#[test]
fn settings_are_found_by_name_and_pattern_once() {
    let mut session = session();
    let mut ask = |patterns: &[&'static str]| {
        let patterns = patterns.iter().map(|pattern| Bytes::from(*pattern)).collect();
        shown(&reply(&mut session, SessionCommand::ConfigGet(patterns)), Wire::Resp2)
    };
    assert_eq!(ask(&["MAXMEMORY"]), "*2\r\n$9\r\nMAXMEMORY\r\n$1\r\n0\r\n");
    let both = "*4\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n$16\r\nmaxmemory-policy\r\n$11\r\nallkeys-lru\r\n";
    assert_eq!(ask(&["maxmemory", "MAX*", "foo"]), both);
    assert_eq!(ask(&["foo"]), "*0\r\n");
}

#[test]
fn time_is_two_numbers_as_text() {
    assert_eq!(reply(&mut session(), SessionCommand::Time), Value::Array(vec![Value::bulk("5"), Value::bulk("42")]));
}

#[test]
fn a_client_line_names_the_connection_and_its_last_command() {
    let mut session = session();
    session.note("client|list", 2_500);
    session.note_queued(Some(3));
    assert!(session.line(5_000).contains(" flags=x db=0 sub=0 psub=0 ssub=0 multi=3 "));
    session.note_queued(None);
    reply(&mut session, SessionCommand::ClientLibName("lib".into()));
    let line = session.line(5_000);
    assert!(
        line.starts_with("id=7 addr=127.0.0.1:5 laddr=127.0.0.1:6 fd=-1 name= age=4 idle=2 flags=N db=0 "),
        "{line}"
    );
    assert!(line.ends_with(" cmd=client|list user=default redir=-1 resp=2 lib-name=lib lib-ver=\n"), "{line}");
}

#[test]
fn one_that_listens_in_version_two_does_little_else() {
    let mut session = session();
    let get = crate::protocol::resp::command::lookup(b"get").unwrap();
    let ping = crate::protocol::resp::command::lookup(b"ping").unwrap();
    assert!(session.refuses(get).is_none());
    session.note_subscribed([1, 0, 2]);
    assert!(session.line(0).contains(" flags=P db=0 sub=1 psub=0 ssub=2 multi=-1 "));
    let text = "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context";
    assert_eq!(session.refuses(get).map(|error| error.text), Some(text.into()));
    assert!(session.refuses(ping).is_none());
    let pong = Value::Array(vec![Value::bulk("pong"), Value::bulk("")]);
    assert_eq!(reply(&mut session, SessionCommand::Ping(None)), pong);
    session.speak(Wire::Resp3, Level::One);
    assert!(session.refuses(get).is_none());
    assert_eq!(reply(&mut session, SessionCommand::Ping(None)), Value::simple("PONG"));
}
