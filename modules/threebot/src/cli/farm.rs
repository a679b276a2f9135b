//! `3bot farm`.

use super::{
    Exit,
    context::{Context, later, now},
    node,
    output::Output,
};
use clap::Subcommand;
use contract::{IdentityId, NodeId};
use serde_json::json;
use threebot::{Grid, farmer, source::When};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a farm, or change its name and location. A key has one farm.
    #[command(
        after_help = "Example:\n  3bot farm create \"Cellar\" --location \"Ghent, Belgium\" --as alice"
    )]
    Create {
        /// What the farm is called.
        name: String,
        /// Where it stands, as you put it.
        #[arg(long)]
        location: String,
    },
    /// Make a token that adopts nodes, for boot images. The secret is printed once.
    #[command(after_help = "Example:\n  3bot farm token --expires 30d")]
    Token {
        /// When the token stops to adopt: a length of time, or a time.
        #[arg(long, default_value = "30d", value_name = "WHEN")]
        expires: When,
    },
    /// Adopt a node that waits for it.
    Approve {
        /// The node.
        node: NodeId,
    },
    /// Show a farm and its nodes.
    Show {
        /// Id of the farm, or name of a key or contact; your own unless given.
        farm: Option<String>,
    },
}

pub(crate) async fn run(
    context: &Context,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    let grid = context.grid()?;
    match command {
        Command::Create { name, location } => {
            let farm = farmer::create_farm(&grid, &context.actor()?, &name, &location).await?;
            let boot = Boot { grid: &grid, farm: farm.farm, token: None };
            output.answer(&json!({ "farm": farm.farm, "version": farm.version, "boot_options": boot.options() }));
            output.say(format_args!("farm {} is version {}", farm.farm, farm.version));
            output.say("");
            output.say("Make a token with `3bot farm token`, then an image or boot options:");
            boot.show(output);
        }
        Command::Token { expires } => {
            let (actor, now) = (context.actor()?, now());
            // Before the secret is shown, all that can be found wrong.
            let expires = later(expires, now, "--expires")?;
            farmer::own_farm(&grid, &actor).await?;
            output.reaches_somebody()?;
            let token = farmer::make_token(expires)?;
            let boot = Boot { grid: &grid, farm: actor.id(), token: Some(&token.seed) };
            output.answer(&json!({
                "farm": actor.id(),
                "token": token.seed,
                "expires": token.expires,
                "boot_options": boot.options(),
            }));
            output.say(format_args!("token {} (shown this once)", token.seed));
            boot.show(output);
            // A token that nobody has read must not adopt nodes: the farm lists it last.
            output.written()?;
            farmer::publish_token(&grid, &actor, &token, now).await?;
            output.say(format_args!("adopts nodes for the farm until {}", token.expires));
        }
        Command::Approve { node } => {
            let id = farmer::approve_node(&grid, &context.actor()?, node, now()).await?;
            output.answer(&json!({ "node": node, "adoption": id }));
            output.say(format_args!("node {node} is adopted"));
        }
        Command::Show { farm } => {
            let id = match farm {
                Some(farm) => context.find(&farm)?,
                None => context.actor()?.id(),
            };
            show(&grid, output, id).await?;
        }
    }
    Ok(Exit::Done)
}

async fn show(grid: &Grid, output: &Output, id: IdentityId) -> anyhow::Result<()> {
    let owner = grid.signer(&id).await?;
    let Some(farm) = grid.farm(&owner).await? else {
        anyhow::bail!("{} has no farm on {}", id.short(), grid.network);
    };
    let nodes = grid.client.nodes(Some(&id)).await?;
    output.answer(&json!({ "farm": farm.body, "nodes": nodes.nodes }));
    let farm = farm.body;
    output.say(format_args!("farm      {id}"));
    output.say(format_args!("name      {}", farm.name));
    output.say(format_args!("location  {}", farm.location));
    for token in &farm.enrolment {
        output.say(format_args!("token     {} until {}", token.key, token.expires));
    }
    output.say("");
    node::table(output, &nodes.nodes);
    let waiting = nodes.nodes.iter().filter(|node| !node.adopted).count();
    if waiting > 0 {
        output.say("");
        output.say(format_args!("{waiting} waiting: adopt with `3bot farm approve NODE`"));
    }
    Ok(())
}

/// What a farmer gives to a machine.
struct Boot<'a> {
    grid: &'a Grid,
    farm: IdentityId,
    token: Option<&'a str>,
}

impl Boot<'_> {
    fn registry(&self) -> String {
        self.grid.client.bases().join(",")
    }

    fn token(&self) -> &str {
        self.token.unwrap_or("TOKEN")
    }

    /// The kernel command line.
    fn options(&self) -> String {
        let network = &self.grid.network;
        let (farm, registry, token) = (self.farm, self.registry(), self.token());
        format!("zos.network={network} zos.farm={farm} zos.registry={registry} zos.token={token}")
    }

    fn show(&self, output: &Output) {
        let network = &self.grid.network;
        let (farm, registry, token) = (self.farm, self.registry(), self.token());
        output.say("image:");
        output.say(format_args!(
            "  cargo xtask image --network {network} --farm {farm} --registry {registry} --token {token}"
        ));
        output.say("boot options:");
        output.say(format_args!("  {}", self.options()));
    }
}
