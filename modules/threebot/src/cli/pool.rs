//! `3bot pool`.

use super::{
    Exit,
    context::{Context, later, now},
    output::Output,
};
use clap::Subcommand;
use contract::{NodeId, Signed, StatementId, capacity::Amounts, farm::Pool};
use serde_json::json;
use threebot::{Grid, farmer, source::When};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Grant capacity on nodes of your farm to a customer. Prints the id for their contracts.
    #[command(after_help = "\
One CU is 4 GiB of memory or 2 cores, one SU is 1200 GiB of rotating disk or 300 GiB of flash.

Example:
  3bot pool grant --to bob --node NODE --cu-hours 2000 --su-hours 100 --expires 90d --as alice")]
    Grant {
        /// Who may use it: an identity id, key or contact.
        #[arg(long, value_name = "IDENTITY")]
        to: String,
        /// A node that it may be used on; repeat for more.
        #[arg(long, required = true, value_name = "NODE")]
        node: Vec<NodeId>,
        /// Compute units times hours.
        #[arg(long, default_value_t = 0, value_name = "N")]
        cu_hours: u64,
        /// Storage units times hours.
        #[arg(long, default_value_t = 0, value_name = "N")]
        su_hours: u64,
        /// Nothing may use it from then on: a length of time, or a time.
        #[arg(long, default_value = "90d", value_name = "WHEN")]
        expires: When,
    },
    /// Show a grant, and whether its farm has signed it.
    Show {
        /// Id of the grant.
        pool: StatementId,
    },
}

pub(crate) async fn run(
    context: &Context,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    let grid = context.grid()?;
    match command {
        Command::Grant { to, node, cu_hours, su_hours, expires } => {
            let now = now();
            let grant = farmer::Grant {
                owner: context.find(&to)?,
                nodes: node,
                amounts: Amounts {
                    cu_seconds: cu_hours.saturating_mul(3600),
                    su_seconds: su_hours.saturating_mul(3600),
                    ipv4_seconds: 0,
                },
                expires: later(expires, now, "--expires")?,
            };
            let id = farmer::grant_pool(&grid, &context.actor()?, &grant, now).await?;
            output.answer(&json!({ "pool": id, "owner": grant.owner, "expires": grant.expires }));
            output.say(format_args!("pool {id}"));
            output.say(format_args!("granted to {} until {}", grant.owner, grant.expires));
        }
        Command::Show { pool } => show(context, &grid, output, &pool).await?,
    }
    Ok(Exit::Done)
}

async fn show(
    context: &Context,
    grid: &Grid,
    output: &Output,
    id: &StatementId,
) -> anyhow::Result<()> {
    let people = context.people()?;
    let pool: Signed<Pool> = grid.statement(id).await?;
    let valid = grid.signer(&pool.body.farm).await?.signed(&pool);
    output.answer(&json!({ "pool": id, "signed": valid, "grant": pool.body }));
    let body = &pool.body;
    output.say(format_args!("pool      {id}"));
    output.say(format_args!("farm      {}", people.show_exactly(&body.farm)));
    output.say(format_args!("owner     {}", people.show_exactly(&body.owner)));
    output.say(format_args!("CU-hours  {}", body.amounts.cu_seconds / 3600));
    output.say(format_args!("SU-hours  {}", body.amounts.su_seconds / 3600));
    output.say(format_args!("expires   {}", body.expires));
    body.nodes.iter().for_each(|node| output.say(format_args!("node      {node}")));
    anyhow::ensure!(valid, "the farm has not signed this grant");
    Ok(())
}
