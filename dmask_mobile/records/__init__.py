"""The frozen records that pass between the stages of the chain."""
