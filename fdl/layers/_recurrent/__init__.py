"""Recurrent layers: a cell is stated once by its equations, and one engine runs it over time and back.

| file             | what it holds                                                              |
|------------------|----------------------------------------------------------------------------|
| cell.py          | what a cell is: one step, its error back, and the gradients of its weights |
| engine.py        | over time and back: masks, resets, truncation, what is kept                |
| layer.py         | the layer of a cell                                                        |
| bidirectional.py | both ways through time                                                     |

rnn.py, lstm.py and gru/ beside this folder state the cells.
"""
