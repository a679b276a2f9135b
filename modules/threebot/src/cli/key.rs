//! `3bot key`.

use super::{Exit, context::Context, output::Output};
use clap::Subcommand;
use identity::Name;
use serde_json::json;
use threebot::Actor;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a key. It is never overwritten, and not protected by a passphrase.
    #[command(after_help = "Example:\n  3bot key new alice --display \"Alice A., Example Ltd\"")]
    New {
        /// Name of the key on this machine: 1 to 32 of a-z, 0-9 and -.
        name: Name,
        /// How others see you; proves nothing. The name of the key unless given.
        #[arg(long, value_name = "NAME")]
        display: Option<String>,
    },
    /// List keys and the identities that they make on the network.
    List,
    /// Show a key's identity. The secret is never shown.
    Show {
        /// Name of the key; the one that signs unless given.
        name: Option<Name>,
    },
    /// Make the identity of a key known to the registry. Commands that sign do so by themselves.
    Register {
        /// Name of the key; the one that signs unless given.
        name: Option<Name>,
    },
}

pub(crate) async fn run(
    context: &Context,
    output: &Output,
    command: Command,
) -> anyhow::Result<Exit> {
    let load = |name: Option<Name>| -> anyhow::Result<Actor> {
        let name = name.map_or_else(|| context.signer(), Ok)?;
        Ok(Actor::load(&context.keys(), &name, &context.network)?)
    };
    match command {
        Command::New { name, display } => {
            let display = display.unwrap_or_else(|| name.to_string());
            context.keys().create(&name, &display)?;
            show(output, &load(Some(name))?);
        }
        Command::List => {
            let (mut own, mut broken) = (Vec::new(), Vec::new());
            for name in context.keys().list()? {
                match load(Some(name.clone())) {
                    Ok(actor) => own.push(actor),
                    Err(error) => {
                        output.note(format_args!("{name}: {}", threebot::error::chain(&*error)));
                        broken.push(name.to_string());
                    }
                }
            }
            let list: Vec<_> = own.iter().map(view).collect();
            output.answer(&list);
            let row = |actor: &Actor| {
                vec![actor.key.name.to_string(), actor.key.display.clone(), actor.id().to_string()]
            };
            let rows: Vec<_> = own.iter().map(row).collect();
            output.table(&["KEY", "DISPLAY NAME", "IDENTITY"], &rows);
            anyhow::ensure!(broken.is_empty(), "keys that cannot be used: {}", broken.join(", "));
        }
        Command::Show { name } => show(output, &load(name)?),
        Command::Register { name } => {
            let actor = load(name)?;
            context.grid()?.register(&actor.own).await?;
            show(output, &actor);
        }
    }
    Ok(Exit::Done)
}

fn view(actor: &Actor) -> serde_json::Value {
    json!({
        "key": actor.key.name.as_str(),
        "display": actor.key.display,
        "network": actor.own.signer.identity.network,
        "identity": actor.id(),
        "public": actor.key.secret.public(),
    })
}

fn show(output: &Output, actor: &Actor) {
    output.answer(&view(actor));
    output.say(format_args!("key       {}", actor.key.name));
    output.say(format_args!("display   {}", actor.key.display));
    output.say(format_args!("network   {}", actor.own.signer.identity.network));
    output.say(format_args!("identity  {}", actor.id()));
    output.say(format_args!("public    {}", actor.key.secret.public()));
}
