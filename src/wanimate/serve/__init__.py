"""The service: HTTP faces, job table, workers, storage. `wanimate serve` starts it; docs/service.md describes it."""
