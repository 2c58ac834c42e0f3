//! Makes a node's identity and signed record, and reads them back from their text forms.

use peerage_wire::{Keypair, NetworkId, NodeId, NodeRecord, RecordDraft, address};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = Keypair::generate()?;
    let listens = address::parse("/ip4/192.0.2.1/tcp/30303")?;
    println!("id:      {}", keys.id());
    println!("address: {}", address::with_id(&listens, keys.id()));

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let draft = RecordDraft::new(now.as_millis() as u64, NetworkId::named("example"));
    let record = draft.address(listens).entry("fork", [1, 2, 3, 4]).sign(&keys)?;
    println!("record:  {record} ({} bytes)", record.bytes().len());

    let read: NodeRecord = record.to_string().parse()?;
    let checked = read.verify()?;
    let id: NodeId = keys.id().to_string().parse()?;
    assert_eq!(checked.id(), id);
    println!("signed by its owner, listens at {:?}", checked.tcp_address());
    Ok(())
}
