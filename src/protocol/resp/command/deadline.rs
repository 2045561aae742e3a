//! Deadlines in arguments: which values Redis takes, in which unit, from which base. Shared by `SET`, `GETEX`, `EXPIRE` and theirs.

use super::{Context, ErrorText, integer};
use crate::base::op::Deadline;

/// Unit and base of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Seconds rather than milliseconds.
    pub(super) seconds: bool,
    /// Unix time rather than time from now.
    pub(super) absolute: bool,
}

impl Form {
    pub(super) const EX: Self = Self { seconds: true, absolute: false };
    pub(super) const PX: Self = Self { seconds: false, absolute: false };
    pub(super) const EXAT: Self = Self { seconds: true, absolute: true };
    pub(super) const PXAT: Self = Self { seconds: false, absolute: true };
}

/// The deadline a value is stored with: more than zero.
pub(super) fn positive(arg: &[u8], form: Form, command: &str, context: &Context) -> Result<Deadline, ErrorText> {
    let number = integer(arg)?;
    if number <= 0 {
        return Err(invalid(command));
    }
    bounded(number, form, command, context)
}

/// Any deadline that milliseconds since the epoch can express.
pub(super) fn any(arg: &[u8], form: Form, command: &str, context: &Context) -> Result<Deadline, ErrorText> {
    bounded(integer(arg)?, form, command, context)
}

fn bounded(number: i64, form: Form, command: &str, context: &Context) -> Result<Deadline, ErrorText> {
    let ms = number.checked_mul(if form.seconds { 1000 } else { 1 }).ok_or_else(|| invalid(command))?;
    if form.absolute {
        return Ok(Deadline::At(ms));
    }
    let now = i64::try_from(context.now).unwrap_or(i64::MAX);
    ms.checked_add(now).ok_or_else(|| invalid(command))?;
    Ok(Deadline::In(ms))
}

fn invalid(command: &str) -> ErrorText {
    format!("ERR invalid expire time in '{command}' command").into()
}
