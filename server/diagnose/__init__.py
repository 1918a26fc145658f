"""`holdfastd diagnose`: what stands in the way of this node, seen from its own host, whether it runs or not.

A check is a function of the context that yields findings and changes nothing. Each group has its file; `registry`
lists the groups, `report` shows what they found. Nothing of the node is started.
"""
