"""Tests of the deployment files, with no cluster and no network."""
