//! What of a table tells that nobody has touched it.

use std::collections::BTreeSet;

use super::decode::{Attributes, ChainState, RuleState, SetState, TableState};
use super::encode::{Table, message};
use super::{KernelError, Nftables};

/// Objects of a table that are looked at: far more than one of ours has.
const OBJECTS_MAX: usize = 1 << 10;

/// A table without what is in its sets. Handles are given once, and what has one does not change
/// but for what stands beside it here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    table: Option<TableState>,
    chains: BTreeSet<ChainState>,
    /// Chain and handle, in their order.
    rules: Vec<(String, u64)>,
    sets: BTreeSet<SetState>,
}

impl Shape {
    /// What to say of a table that has this shape and should have another.
    pub(crate) fn fault(&self) -> &'static str {
        match self.table {
            None => "was gone",
            Some(_) => "was changed",
        }
    }
}

impl Nftables {
    /// The shape of a table, there or not.
    pub(crate) fn shape(&mut self, table: &Table) -> Result<Shape, KernelError> {
        let doing = "look at the nftables table";
        let Some(state) = self.table(doing, table)? else {
            return Ok(Shape::default());
        };
        let (family, named) = (table.family, table.attribute());
        let kind = (family, message::GET_CHAIN);
        let chains = self.dump(doing, kind, &named, |all: &mut BTreeSet<_>, _, one| {
            let chain = ChainState::read(Attributes(one));
            all.extend(chain.filter(|chain| chain.table == table.name && all.len() < OBJECTS_MAX));
        })?;
        let kind = (family, message::GET_SET);
        let sets = self.dump(doing, kind, &named, |all: &mut BTreeSet<_>, _, one| {
            let set = SetState::read(Attributes(one));
            all.extend(set.filter(|set| set.table == table.name && all.len() < OBJECTS_MAX));
        })?;
        let rules = self.rules(table)?.into_iter();
        Ok(Shape {
            table: Some(state),
            chains,
            rules: rules.map(|rule| (rule.chain, rule.handle)).collect(),
            sets,
        })
    }

    /// The rules of a table.
    pub(crate) fn rules(&mut self, table: &Table) -> Result<Vec<RuleState>, KernelError> {
        let kind = (table.family, message::GET_RULE);
        let doing = "list the rules of nftables";
        self.dump(
            doing,
            kind,
            &table.attribute(),
            |all: &mut Vec<_>, _, one| {
                let rule = RuleState::read(Attributes(one));
                all.extend(rule.filter(|rule| rule.table == table.name && all.len() < OBJECTS_MAX));
            },
        )
    }
}
