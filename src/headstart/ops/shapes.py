"""The dimension key: a tensor's name ends in its axes, one letter each, for the whole house.

    B  rows of a batch            P  prompt length (vectors)      N  prompts in a bank
    T  text tokens of a row       S  P + T, a row's positions     E  candidates' inner tokens
    H  hidden size                V  vocabulary                   C  candidate answers of a row
    Q  scored positions of a row  K  tokens of a candidate        L  layers

``scores_BC[b, c]`` is the score of candidate ``c`` of row ``b``; ``prompts_NPH[n]`` is the n-th soft prompt.
Prompts of different length stand right-aligned in their P slots, so that each touches its text.
"""
