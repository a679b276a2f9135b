//! The SDK of customers, stakeholders and farmers; the `3bot` command line is a thin shell over it.
//!
//! A farmer makes a farm, hands out tokens and grants capacity ([`farmer`]). A customer writes a
//! [`source`], [`plan`]s it into exact bytes, signs and pushes them ([`customer`]). Stakeholders read
//! what they sign and decide ([`stakeholder`]); everybody sees what nodes prove ([`status`],
//! [`results`]). Whoever calls gives the time; nothing here prints, asks or reads the environment.
//!
//! Believes no registry: identities, contracts, documents and results are verified here, with the
//! rules of the `contract` crate that nodes use.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use contract::Timestamp;
//! use identity::Keys;
//! use threebot::{Actor, Grid, People, farmer, status};
//!
//! let keys = Keys::at("/home/alice/.config/zos".as_ref());
//! let grid = Grid::new("test", ["http://127.0.0.1:8000"])?;
//! let alice = Actor::load(&keys, &"alice".parse()?, &grid.network)?;
//! let now = Timestamp::from_seconds(1_800_000_000);
//! farmer::create_farm(&grid, &alice, "Cellar", "Ghent, Belgium").await?;
//! let token = farmer::make_token(now.plus(30 * 86_400))?;
//! // Hand `token.seed` over, then:
//! farmer::publish_token(&grid, &alice, &token, now).await?;
//! assert_eq!(token.seed.len(), 64);
//! let contract = "00".repeat(32).parse()?;
//! let found = status::status(&grid, &contract, &People::default(), now).await?;
//! assert_eq!(found.contract, contract);
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod diff;
pub mod plan;
pub mod source;
pub mod text;

pub mod audit;
pub mod carry;
pub mod content;
pub mod customer;
pub mod documents;
pub mod error;
pub mod evidence;
pub mod farmer;
pub mod gc;
pub mod grid;
pub mod log;
pub mod people;
pub mod place;
pub mod results;
pub mod scrub;
pub mod stakeholder;
pub mod status;

pub use error::BotError;
pub use grid::{Actor, Grid};
pub use people::People;
