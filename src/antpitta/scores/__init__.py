"""After the network: metrics, events, ensembles; numpy only."""
