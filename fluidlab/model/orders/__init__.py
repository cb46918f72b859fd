"""Order = a permutation, a chunking and an attention rule. A fourth order is one file and one entry here."""

from fluidlab.model.orders.random_order import RandomOrder
from fluidlab.model.orders.raster import RasterOrder

ORDERS = {"raster": RasterOrder, "random": RandomOrder}
