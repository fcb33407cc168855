//! The Noise handshake of two peers (<https://noiseprotocol.org/noise.html>, revision 34).
//!
//! ```text
//! XXpsk0:  -> psk, e        the psk makes a stranger's message fail before any public-key work
//!          <- e, ee, s, es
//!          -> s, se
//! ```

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use snow::{Builder, HandshakeState};
use zeroize::Zeroize;

use super::resolver::Resolver;
use super::{Forged, Handshake, HandshakeSetup, Key, OVERHEAD, Role, wipe_stack};

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
const MESSAGES: usize = OVERHEAD.len();
/// Position of the message that the secret goes into, and the secret's among those a pattern may have.
const FIRST: usize = 0;
const PSK_PLACE: usize = 0;
/// Position of the message that gives the responder the initiator's static key.
const THIRD: usize = 2;

/// One end of a handshake.
pub(super) struct NoiseHandshake {
    inputs: Inputs,
    // `None` only if `snow` refused the constant pattern: every operation then fails.
    state: Option<HandshakeState>,
    /// Messages that went through.
    position: usize,
}

/// What it takes to make the state again.
struct Inputs {
    role: Role,
    static_pair: (Key, [u8; 32]),
    psk: Key,
    prologue: Vec<u8>,
    randomness: Key,
    /// The first message, kept by the responder until the third has come.
    first_message: Vec<u8>,
    /// The responder's own payload in the second.
    second_payload: Vec<u8>,
}

impl Inputs {
    fn build(&self) -> Option<HandshakeState> {
        let resolver = Resolver {
            randomness: self.randomness.clone(),
            static_pair: self.static_pair.clone(),
        };
        let builder = Builder::with_resolver(PATTERN.parse().ok()?, Box::new(resolver))
            .prologue(&self.prologue)
            .and_then(|builder| builder.local_private_key(self.static_pair.0.bytes()))
            .ok()?;
        match self.role {
            Role::Initiator => builder.build_initiator().ok(),
            Role::Responder => builder.build_responder().ok(),
        }
    }

    /// Gives `state` the secret for as long as `work` takes: `snow` keeps its copy open to view, and does not
    /// overwrite it when it is dropped.
    fn with_psk<T>(
        &self,
        state: &mut HandshakeState,
        work: impl FnOnce(&mut HandshakeState) -> T,
    ) -> T {
        // Fails only for another length or place, and then so does `work`.
        let _ = state.set_psk(PSK_PLACE, self.psk.bytes());
        let done = work(state);
        let _ = state.set_psk(PSK_PLACE, &[0; 32]);
        done
    }

    /// A responder's state as it was before the third message: the same inputs and the same
    /// randomness give the same bytes.
    fn rebuild_before_third(&self) -> Option<HandshakeState> {
        let mut state = self.build()?;
        self.with_psk(&mut state, |state| read(state, &self.first_message))
            .ok()?;
        write(&mut state, &self.second_payload, &mut Vec::new()).ok()?;
        Some(state)
    }
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, Forged> {
    let mut payload = vec![0; message.len()];
    let len = state
        .read_message(message, &mut payload)
        .map_err(|_| Forged)?;
    payload.truncate(len);
    Ok(payload)
}

fn write(state: &mut HandshakeState, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Forged> {
    let (start, longest) = (out.len(), OVERHEAD[0].max(OVERHEAD[1]).max(OVERHEAD[2]));
    out.resize(start + payload.len() + longest, 0);
    let written = state.write_message(payload, &mut out[start..]);
    out.truncate(start + written.as_ref().copied().unwrap_or(0));
    written.map(|_| ()).map_err(|_| Forged)
}

impl NoiseHandshake {
    pub(super) fn new(setup: HandshakeSetup<'_>, static_pair: (Key, [u8; 32])) -> Self {
        let inputs = Inputs {
            role: setup.role,
            static_pair,
            psk: setup.psk.clone(),
            prologue: setup.prologue.to_vec(),
            randomness: setup.randomness,
            first_message: Vec::new(),
            second_payload: Vec::new(),
        };
        NoiseHandshake {
            state: inputs.build(),
            inputs,
            position: 0,
        }
    }

    fn finished(&self) -> bool {
        self.position == MESSAGES
    }

    /// `snow` undoes what a failed message did, except when the static key in a third message was
    /// genuine and the payload after it was not.
    fn undo_failed_read(&mut self) {
        let spoilt = |state: &HandshakeState| state.get_remote_static().is_some();
        if self.position == THIRD && self.state.as_ref().is_some_and(spoilt) {
            self.state = self.inputs.rebuild_before_third();
        }
    }
}

impl Handshake for NoiseHandshake {
    fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), Forged> {
        let state = self.state.as_mut().ok_or(Forged)?;
        if self.position == FIRST {
            self.inputs
                .with_psk(state, |state| write(state, payload, out))?;
        } else {
            write(state, payload, out)?;
        }
        wipe_stack();
        if self.inputs.role == Role::Responder {
            self.inputs.second_payload = payload.to_vec();
        }
        self.position += 1;
        Ok(())
    }

    fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, Forged> {
        let state = self.state.as_mut().ok_or(Forged)?;
        if state.is_my_turn() || self.position == MESSAGES {
            return Err(Forged);
        }
        let result = if self.position == FIRST {
            self.inputs.with_psk(state, |state| read(state, message))
        } else {
            read(state, message)
        };
        wipe_stack();
        let Ok(payload) = result else {
            self.undo_failed_read();
            return Err(Forged);
        };
        if self.position == 0 {
            self.inputs.first_message = message.to_vec();
        }
        self.position += 1;
        Ok(payload)
    }

    fn remote_static(&self) -> Option<[u8; 32]> {
        let known_from = match self.inputs.role {
            Role::Initiator => 2,
            Role::Responder => 3,
        };
        let state = self
            .state
            .as_ref()
            .filter(|_| self.position >= known_from)?;
        state.get_remote_static()?.try_into().ok()
    }

    fn split(&mut self) -> Option<(Key, Key)> {
        if !self.finished() {
            return None;
        }
        let (mut first, mut second) = self.state.as_mut()?.dangerously_get_raw_split();
        let keys = [&first, &second].map(|bytes| Key::made_by(|key| key.copy_from_slice(bytes)));
        first.zeroize();
        second.zeroize();
        Some(keys.into())
    }
}

#[cfg(test)]
mod tests;
