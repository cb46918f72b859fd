import numpy as np
import torch


def by_the_text(text, null, scale, temperature):
    scores = torch.lerp(null, text, scale) / temperature
    weights = (scores - scores.max(dim=1, keepdim=True).values).exp()
    return weights / weights.sum(dim=1, keepdim=True)


def by_weights(text, null, scale, temperature):
    weights = (text.double().exp() ** scale * null.double().exp() ** (1 - scale)) ** (1 / temperature)
    return (weights / weights.sum(-1, keepdim=True)).numpy()


def scales_one_by_one(sizes, scale):
    known, scales = 0, []
    for size in sizes:
        known += size
        share = known / sum(sizes)
        scales.append((1 - share) * 1 + share * scale)
    return scales


def ring_by_neighbours(mask):
    h, w = mask.shape
    return [[bool(mask[max(0, y - 1):y + 2, max(0, x - 1):x + 2].any()) for x in range(w)] for y in range(h)]


def ring_by_counting(mask):
    weights = torch.ones(1, 1, 3, 3)
    return torch.conv2d(mask[None, None].float(), weights, padding=1)[0, 0] > 0.5


def ring_along_both_axes(mask):
    wider = mask.clone()
    wider[:, 1:] |= mask[:, :-1]
    wider[:, :-1] |= mask[:, 1:]
    taller = wider.clone()
    taller[1:] |= wider[:-1]
    taller[:-1] |= wider[1:]
    return taller


def fill_by_cutting(predict, tokens, unknown, order, sizes):
    places = [place for place in order.tolist() if unknown[place]]
    for size in sizes:
        now, places = places[:size], places[size:]
        drawn = predict(tokens, unknown)
        chosen = torch.zeros_like(unknown)
        chosen[now] = True
        tokens, unknown = torch.where(chosen, drawn, tokens), unknown & ~chosen
    return tokens


def fill_by_popping(predict, tokens, unknown, order, sizes):
    tokens, unknown, waiting = tokens.clone(), unknown.clone(), list(reversed(order.tolist()))
    for size in sizes:
        drawn, done = predict(tokens.clone(), unknown.clone()), 0
        while done < size:
            place = waiting.pop()
            if unknown[place]:
                tokens[place], unknown[place] = drawn[place], False
                done += 1
    return tokens


ANSWERS = {
    "guided_probabilities": [by_the_text, by_weights],
    "growing_scales": [
        scales_one_by_one, lambda sizes, scale: np.interp(np.cumsum(sizes), [0, np.sum(sizes)], [1, scale])],
    "ring": [ring_by_neighbours, ring_by_counting, ring_along_both_axes],
    "fill": [fill_by_cutting, fill_by_popping],
}
