"""Our records against the ERP's, and against each other: receipts, traces, proofs, ledgers.

Lives here: what an ERP document has become since it was written, the chain from any event to its
document and back, the proof that the listed events give the posted amount, and the four ledgers.
Does not: writing to an ERP (posting), answers to changed documents (staging), the audit seal.
"""
