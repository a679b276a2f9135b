//! Where registry and witnesses live, and how they are struck.

use crate::{
    chance::Chance,
    house::{House, Member, WITNESSES, said},
};
use anyhow::{Context as _, Result, ensure};
use std::{net::SocketAddr, process::Command, time::Duration};
use tlog::Policy;

/// What is struck and mended.
pub(super) trait Site {
    /// Where a program answers.
    fn address(&self, member: Member) -> SocketAddr;
    /// Which checkpoints count.
    fn policy(&self) -> &Policy;
    /// How many times slower than this machine it is.
    fn pace(&self) -> u32;
    /// Takes the life of something, and says of what.
    fn strike(&mut self, chance: &Chance) -> Result<String>;
    /// Everything serves when this returns.
    fn mend(&mut self, chance: &Chance) -> Result<()>;
    /// What can be checked when nobody will ask any more.
    fn finish(&mut self, chance: &Chance) -> Result<()>;
}

/// A program that is killed again while it starts is killed within this time.
const START: Duration = Duration::from_millis(40);

impl Site for House {
    fn address(&self, member: Member) -> SocketAddr {
        match member {
            Member::Registry => House::address(self),
            Member::Witness(number) => self.witness(number),
        }
    }

    fn policy(&self) -> &Policy {
        House::policy(self)
    }

    fn pace(&self) -> u32 {
        1
    }

    /// The registry as often as anybody else, and sometimes everybody.
    fn strike(&mut self, chance: &Chance) -> Result<String> {
        let (name, struck): (_, Vec<_>) = match chance.one_of(8) {
            0 => ("all", Member::all().collect()),
            1..=3 => ("a witness", vec![Member::Witness(chance.one_of(WITNESSES))]),
            _ => ("the registry", vec![Member::Registry]),
        };
        for member in struck {
            self.kill(member);
        }
        Ok(name.to_owned())
    }

    /// Who recovers may be struck again while it does.
    fn mend(&mut self, chance: &Chance) -> Result<()> {
        for member in Member::all() {
            if !self.is_awake(member) && chance.one_of(4) == 0 {
                self.wake_for(member, chance.below(START))?;
            }
            self.wake(member)?;
        }
        Ok(())
    }

    /// Every file of the log and every statement against each other.
    fn finish(&mut self, _chance: &Chance) -> Result<()> {
        self.kill(Member::Registry);
        let registryd = crate::farm::program("registryd")?;
        let checked = said(Command::new(registryd).args(["fsck", "--data"]).arg(self.data()));
        let checked = checked.context("registryd fsck")?;
        ensure!(checked.contains("is whole"), "registryd fsck says {checked:?}");
        Ok(())
    }
}
