use super::text::columns;
use super::{At, failed, print};
use crate::cli::{Context, Failure};
use crate::image_store;
use clap::{Subcommand, ValueEnum};
use gilt_store::{Error, Role, TrustedKey};
use serde_json::json;
use std::path::PathBuf;

#[derive(Subcommand)]
pub enum Key {
    /// List the keys the store trusts, and which of them are here
    Ls {
        #[command(flatten)]
        at: At,
    },
    /// Make a key pair in the user's folder
    New { name: String },
    /// Print a public key, to be added by who keeps the policy
    Export {
        #[arg(default_value = "default")]
        name: String,
    },
    /// Trust a public key
    Add {
        /// A .pub file
        file: PathBuf,
        #[command(flatten)]
        at: At,
        /// Name it goes by in the policy; the file's name if not given
        #[arg(long)]
        name: Option<String>,
        /// What it may sign; may be given more than once
        #[arg(long = "role", required = true)]
        roles: Vec<RoleName>,
    },
    /// Trust nothing that a key signs from now on, or from a time on
    Retire {
        name: String,
        #[command(flatten)]
        at: At,
        /// From this time on, as 2026-11-23T00:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<jiff::Timestamp>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub enum RoleName {
    /// Versions
    Builder,
    /// Channels, and the life of versions
    Release,
    /// The policy
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Builder => Self::Builder,
            RoleName::Release => Self::Release,
            RoleName::Admin => Self::Admin,
        }
    }
}

impl Key {
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self {
            Self::Ls { at } => {
                let store = at.open().await?;
                let here = image_store::options().keys.list().map_err(failed)?;
                let keys = store.policy().keys;
                print(context, &keys, |keys| {
                    let row = |key: &TrustedKey| {
                        let roles: Vec<_> = key.roles.iter().map(|role| role.name()).collect();
                        let mine = here.iter().any(|pair| pair.id == key.id);
                        let retired = key.retired.map(|at| format!("retired {at:.0}"));
                        vec![
                            key.name.clone(),
                            key.id[..key.id.len().min(16)].to_owned(),
                            roles.join(" "),
                            if mine { "here".to_owned() } else { String::new() },
                            retired.unwrap_or_default(),
                        ]
                    };
                    columns(&keys.iter().map(row).collect::<Vec<_>>())
                })
            }
            Self::New { name } => {
                let keys = image_store::options().keys;
                let pair = keys.create(&name).map_err(failed)?;
                let public = keys.folder().join(format!("{name}.pub"));
                let value = json!({ "name": name, "id": pair.id, "public": public });
                print(context, &value, |_| format!("{}\n", public.display()))
            }
            Self::Export { name } => {
                let pairs = image_store::options().keys.list().map_err(failed)?;
                let pair = pairs.into_iter().find(|pair| pair.name == name);
                let pair =
                    pair.ok_or_else(|| failed(Error::NotFound { what: format!("key {name}") }))?;
                let pem = pair.public_pem().map_err(failed)?;
                print(context, &json!({ "name": name, "id": pair.id, "pem": pem }), |_| pem.clone())
            }
            Self::Add { file, at, name, roles } => {
                let store = at.open().await?;
                let pem = std::fs::read_to_string(&file)
                    .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
                let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned());
                let name = name.or(stem).unwrap_or_default();
                let roles: Vec<Role> = roles.into_iter().map(Role::from).collect();
                let key = TrustedKey::from_pem(&name, &pem, &roles).map_err(failed)?;
                store
                    .change_policy(|policy| {
                        policy.keys.retain(|other| other.id != key.id);
                        policy.keys.push(key.clone());
                        Ok(())
                    })
                    .await
                    .map_err(failed)?;
                print(context, &key, |key| format!("{} is trusted\n", key.name))
            }
            Self::Retire { name, at, since } => {
                let store = at.open().await?;
                let since = since.unwrap_or_else(jiff::Timestamp::now);
                store
                    .change_policy(|policy| {
                        let key = policy.keys.iter_mut().find(|key| key.name == name);
                        let what = format!("key {name}");
                        key.ok_or(Error::NotFound { what })?.retired = Some(since);
                        Ok(())
                    })
                    .await
                    .map_err(failed)?;
                let value = json!({ "name": name, "retired": since });
                print(context, &value, |_| format!("{name} is retired since {since:.0}\n"))
            }
        }
    }
}
