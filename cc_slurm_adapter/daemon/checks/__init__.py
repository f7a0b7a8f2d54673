"""What can be wrong at a site, looked for before it matters: each module yields findings and changes nothing."""
