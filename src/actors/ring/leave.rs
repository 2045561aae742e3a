//! This node's own place among the members, and its share: it stays one whatever others believed meanwhile, until it wishes to leave, has handed everything
//! over and tells everybody that it is gone. Who may leave is decided in `cluster::leave`, when nothing is left here in `cluster::sync`.
//! Exercised by the simulation.
//!
//! Bound: `PULLS_MAX` farewells at a time, all of them within `FAREWELL_MAX`.

use std::time::Duration;

use actix::prelude::*;
use futures_util::StreamExt;

use super::{PULLS_MAX, RingActor, exchange};
use crate::cluster::leave::{has_heir, may_give_up_share, may_leave};
use crate::cluster::membership::{Member, MemberState};
use crate::cluster::plan::Share;
use crate::config::{ConfigError, TOKENS_PER_MEMBER_MAX};

/// Longest wait for the others to hear that this node is gone. Whom it does not reach hears of it from them.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// Leave the cluster: hand everything over, then go.
#[derive(Message, Debug)]
#[rtype(result = "Result<(), String>")]
pub struct Leave;

/// Leave no more: stay a member, and take one's share again.
#[derive(Message, Debug)]
#[rtype(result = "Result<(), String>")]
pub struct Stay;

/// There is nothing here any more that others lack.
#[derive(Message, Debug)]
#[rtype(result = "()")]
pub struct Depart;

/// Take another share of the ring from now on, until the process ends.
#[derive(Message, Debug, Clone)]
#[rtype(result = "Result<(), String>")]
pub struct Reshare(pub Share);

/// How far this node is with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It stays.
    Stay,
    /// It leaves.
    Leave,
    /// It has left: nobody is to make a member of it again.
    Gone,
}

impl RingActor {
    /// A node that runs is a member, whatever others believed meanwhile, and one that leaves does so still.
    pub(super) fn stay(&mut self) {
        if self.wish == Wish::Leave && !has_heir(&self.membership, &self.config.me.id) {
            self.wish = Wish::Stay;
            tracing::warn!("does not leave: nobody else is left to take over what this node holds");
        }
        let state = match self.wish {
            Wish::Stay => MemberState::Joined,
            Wish::Leave => MemberState::Leaving,
            Wish::Gone => return,
        };
        let known = self.membership.member(&self.config.me.id);
        if known.is_some_and(|known| known.state == state && known.incarnation == self.config.me.incarnation) {
            return;
        }
        self.lapses += u32::from(known.is_some_and(Member::is_tombstone));
        match self.membership.join(self.config.me.clone()) {
            Ok(true) => tracing::info!("joined the ring again"),
            Ok(false) => {}
            Err(error) => return tracing::error!(%error, "cannot be a member"),
        }
        if self.wish == Wish::Leave {
            // To be known as one that leaves is a change like any other.
            let _ = self.membership.leave(&self.config.me.id);
        }
    }
}

impl Handler<Leave> for RingActor {
    type Result = Result<(), String>;

    fn handle(&mut self, _: Leave, _: &mut Self::Context) -> Self::Result {
        if self.wish != Wish::Stay {
            return Ok(());
        }
        let id = &self.config.me.id;
        may_leave(&self.view.load(), &self.membership, id).map_err(|stays| stays.to_string())?;
        self.membership.leave(id).map_err(|refused| refused.to_string())?;
        self.wish = Wish::Leave;
        tracing::info!("leaving: others take over what this node holds");
        self.publish(true);
        Ok(())
    }
}

impl Handler<Stay> for RingActor {
    type Result = Result<(), String>;

    fn handle(&mut self, _: Stay, _: &mut Self::Context) -> Self::Result {
        match self.wish {
            Wish::Stay => return Ok(()),
            Wish::Leave => self.wish = Wish::Stay,
            Wish::Gone => return Err("the node has left".into()),
        }
        tracing::info!("does not leave: that was taken back");
        self.stay();
        self.publish(true);
        Ok(())
    }
}

impl Handler<Reshare> for RingActor {
    type Result = Result<(), String>;

    fn handle(&mut self, Reshare(share): Reshare, _: &mut Self::Context) -> Self::Result {
        if self.wish != Wish::Stay {
            return Err("the node is leaving".into());
        }
        let mut me = self.config.me.clone();
        share.apply(&mut me);
        if u64::from(me.vnodes) * u64::from(me.weight) > TOKENS_PER_MEMBER_MAX {
            return Err(ConfigError::TooManyTokens { vnodes: me.vnodes, weight: me.weight }.to_string());
        }
        if me.weight == 0 && self.config.me.weight > 0 {
            may_give_up_share(&self.view.load(), &self.membership, &me.id).map_err(|stays| stays.to_string())?;
        }
        let changed = self.membership.join(me.clone()).map_err(|refused| refused.to_string())?;
        self.config.me = me;
        if changed {
            let Member { weight, zone, .. } = &self.config.me;
            tracing::info!(weight, zone, "takes another share");
            self.publish(true);
        }
        Ok(())
    }
}

impl Handler<Depart> for RingActor {
    type Result = ();

    fn handle(&mut self, _: Depart, _: &mut Self::Context) {
        let id = &self.config.me.id;
        let holds = self.membership.member(id).is_some_and(|me| !me.held_now().is_empty());
        if self.wish != Wish::Leave || holds {
            // It stays, or has been asked to hold something since.
            return;
        }
        let others: Vec<_> = self.view.load().others().filter_map(|(_, peer)| peer.address).collect();
        if let Err(error) = self.membership.left(id) {
            return tracing::error!(%error, "cannot leave");
        }
        self.wish = Wish::Gone;
        self.publish(true);
        let (identity, ours) = (self.config.identity.clone(), exchange::encode(&self.membership));
        let departed = self.config.departed.clone();
        actix::spawn(async move {
            let (identity, ours) = (&identity, &ours);
            let farewells = others.into_iter().map(async |to| exchange::exchange(identity, to, ours).await.is_ok());
            let farewells = futures_util::stream::iter(farewells).buffer_unordered(PULLS_MAX);
            let told = farewells.filter(|told| std::future::ready(*told)).count();
            let told = tokio::time::timeout(FAREWELL_MAX, told).await.ok();
            tracing::info!(told, "left");
            departed.notify_one();
        });
    }
}
