//! What is published: a Bitcoin block's transactions, a file's lines, a whole file, or random bytes.

use bitcoin::Block;
use bitcoin::consensus::encode;
use clap::ValueEnum;
use rand::rngs::ChaCha8Rng;
use rand::{Rng, RngExt, SeedableRng};

/// The node's API takes no larger message.
const MAX_MESSAGE: usize = 4 << 20;

/// Sizes of random messages, in bytes.
const RANDOM_SIZES: std::ops::RangeInclusive<usize> = 100..=4096;

/// How a file is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A serialized Bitcoin block: each transaction in order, then the whole block.
    BitcoinBlock,
    /// Each line that is not empty.
    Lines,
    /// The whole file as one message.
    Bytes,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("is not a serialized Bitcoin block: {}", complaint(.0))]
    Block(#[from] encode::Error),
    #[error("holds nothing to publish")]
    Empty,
    #[error("message {index} would be {bytes} bytes; the node takes at most {MAX_MESSAGE}")]
    TooLarge { index: usize, bytes: usize },
}

fn complaint(error: &encode::Error) -> String {
    match error {
        encode::Error::Io(_) => "it ends too early, or is something else".to_owned(),
        error => error.to_string(),
    }
}

/// Cuts a file's bytes into messages.
pub(crate) fn items(bytes: &[u8], format: Format) -> Result<Vec<Vec<u8>>, InputError> {
    let items: Vec<Vec<u8>> = match format {
        Format::BitcoinBlock => {
            let block: Block = encode::deserialize(bytes)?;
            block.txdata.iter().map(encode::serialize).chain([bytes.to_vec()]).collect()
        }
        Format::Lines => bytes
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect(),
        Format::Bytes => [bytes].iter().filter(|bytes| !bytes.is_empty()).map(|bytes| bytes.to_vec()).collect(),
    };
    if items.is_empty() {
        return Err(InputError::Empty);
    }
    match items.iter().position(|item| item.len() > MAX_MESSAGE) {
        Some(index) => Err(InputError::TooLarge { index, bytes: items[index].len() }),
        None => Ok(items),
    }
}

/// Makes random messages; equal seeds make equal messages.
pub(crate) fn random(count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut message = || {
        let mut bytes = vec![0; rng.random_range(RANDOM_SIZES)];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    (0..count).map(|_| message()).collect()
}

#[cfg(test)]
mod tests {
    use bitcoin::constants::genesis_block;
    use bitcoin::{Amount, Network, ScriptBuf, Transaction, TxOut};

    use super::*;

    fn small_block() -> Block {
        let mut block = genesis_block(Network::Bitcoin);
        for value in [1_000, 2_000] {
            let mut transaction: Transaction = block.txdata[0].clone();
            let script_pubkey = ScriptBuf::from_bytes(vec![0x51; value / 100]);
            transaction.output = vec![TxOut { value: Amount::from_sat(value as u64), script_pubkey }];
            block.txdata.push(transaction);
        }
        block
    }

    #[test]
    fn a_block_gives_its_transactions_in_order_and_then_itself() {
        let block = small_block();
        let bytes = encode::serialize(&block);
        let items = items(&bytes, Format::BitcoinBlock).expect("it is a block");
        assert_eq!(items.len(), 4);
        for (item, transaction) in items.iter().zip(&block.txdata) {
            assert_eq!(encode::deserialize::<Transaction>(item).expect("it is a transaction"), *transaction);
        }
        assert_eq!(items[3], bytes);
    }

    #[test]
    fn a_cut_block_and_a_block_with_bytes_behind_it_are_refused() {
        let mut bytes = encode::serialize(&small_block());
        assert!(matches!(items(&bytes[..bytes.len() - 1], Format::BitcoinBlock), Err(InputError::Block(_))));
        bytes.push(0);
        assert!(matches!(items(&bytes, Format::BitcoinBlock), Err(InputError::Block(_))));
    }

    #[test]
    fn the_shared_mainnet_block_gives_2500_transactions_where_it_is_at_hand() {
        let path = crate::shell::root().join("../shared/data/bitcoin-mainnet-block-702861.raw");
        let Ok(bytes) = std::fs::read(&path) else {
            println!("used the made block only: {} is not there", path.display());
            return;
        };
        println!("used {}", path.display());
        let items = items(&bytes, Format::BitcoinBlock).expect("it is a block");
        assert_eq!(items.len(), 2_501);
        assert_eq!(items[2_500].len(), bytes.len());
        let sizes = || items[..2_500].iter().map(Vec::len);
        assert_eq!(sizes().sum::<usize>() + 83, bytes.len(), "all but header (80) and count (3) is transactions");
        assert_eq!(sizes().min(), Some(188));
    }

    #[test]
    fn lines_skip_empty_ones_and_keep_repeats() {
        let lines = items(b"one\r\n\ntwo\none", Format::Lines).expect("it has lines");
        assert_eq!(lines, [b"one".to_vec(), b"two".to_vec(), b"one".to_vec()]);
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert!(matches!(items(b"", Format::Bytes), Err(InputError::Empty)));
        assert!(matches!(items(b"\n\n", Format::Lines), Err(InputError::Empty)));
        let large = vec![0; MAX_MESSAGE + 1];
        assert!(matches!(items(&large, Format::Bytes), Err(InputError::TooLarge { index: 0, .. })));
        assert_eq!(items(&large[1..], Format::Bytes).map(|items| items.len()).ok(), Some(1));
    }

    #[test]
    fn random_messages_repeat_with_their_seed_and_stay_within_their_sizes() {
        let messages = random(50, 7);
        assert_eq!(messages, random(50, 7));
        assert_ne!(messages, random(50, 8));
        assert!(messages.iter().all(|message| RANDOM_SIZES.contains(&message.len())));
    }
}
