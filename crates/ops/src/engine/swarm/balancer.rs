//! The same HAProxy; services say in a label what it does with them.

use async_trait::async_trait;

use super::{Swarm, spec};
use crate::deploy::parts::{Balancer, Change, Slot};
use crate::exit::{Exit, Result};

#[async_trait]
impl Balancer for Swarm {
    async fn slots(&self) -> Result<Vec<Slot>> {
        self.balancer.slots().await
    }

    async fn apply(&self, changes: &[Change]) -> Result<()> {
        self.balancer.apply(changes).await?;
        // For whoever lists services: the truth is the balancer's, and a label that can't be set undoes no switch. The
        // next change sets it.
        self.mark().await.or(Ok(()))
    }
}

impl Swarm {
    async fn mark(&self) -> Result<()> {
        let groups = self.groups(&self.balancer.slots().await?).await?;
        let _turn = self.turn.lock().await;
        for group in groups {
            // It may be gone by now.
            let _ = self.api.change(&group.id, Exit::Unreachable, |spec| spec::mark(spec, group.active())).await;
        }
        Ok(())
    }
}
