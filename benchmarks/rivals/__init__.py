"""The same work side by side: other message routers, in pinned versions, next to iapeer."""
