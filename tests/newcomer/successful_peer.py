def successful_peer(problem, rollout, group):
    peers = [peer.text for peer, reward in group.peers(rollout) if reward > 0]
    return f"Another attempt that is right:\n{peers[0]}" if peers else None
