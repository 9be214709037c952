"""Webhooks by the Standard Webhooks specification: what happens is sent, signed, and sent again."""
