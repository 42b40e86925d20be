"""HTTP faces: each translates one contract to `service.Service` and back."""
