"""The relay: it stores, orders and hands over sealed objects that it cannot read."""
