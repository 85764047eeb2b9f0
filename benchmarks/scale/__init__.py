"""How a capture job scales: units, resumption, and memory of the coordinator, with a stand-in for the teacher."""
