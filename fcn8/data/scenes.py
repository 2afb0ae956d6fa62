"""Synthetic road scenes in the layout of the KITTI road benchmark, so that the program runs before any data is at hand.

A scene is planned in road coordinates and drawn once, into a picture and its label alike: x metres to the right of the
camera, bending with the road; y metres above the ground; z metres ahead. The ground is painted by inverse perspective,
every pixel asking what lies at its (x, z); upright things are drawn over it from far to near.
"""
import os
from collections import namedtuple

import imageio.v2 as imageio
import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from fcn8 import progress
from fcn8.files import scratch_folder

CATEGORIES = ('um', 'umm', 'uu')    # urban marked (two lanes), urban multiple marked lanes, urban unmarked
SIZES = ((375, 1242),) * 5 + ((370, 1224), (374, 1238), (376, 1241))    # height, width in pixels
LABEL_COLOURS = np.array([(255, 0, 0), (255, 0, 255), (0, 0, 0)], np.uint8)
BACKGROUND, ROAD, IGNORED = range(3)            # rows of LABEL_COLOURS
CLASS_COLOURS = np.array([(0, 0, 0), (70, 130, 180), (128, 64, 128), (255, 255, 255), (107, 142, 35), (70, 70, 70)],
                         np.uint8)              # those of docs/demo-classes.json
OTHER, SKY, DRIVABLE, MARKING, VEGETATION, BUILDING = range(6)  # rows of CLASS_COLOURS
CLASS_OF_KIND = {'tree': VEGETATION, 'bush': VEGETATION, 'house': BUILDING}  # things of other kinds are OTHER
GROUND = 255                                    # in the mask of what stands on it
ASPHALT, PAVING, KERB, GRASS, SOIL = range(5)   # what the ground is made of
CAMERA_HEIGHT = 1.65                            # metres
FARTHEST = 400.0                                # metres; the ground ends there
CAR_PAINTS = ((38, 40, 46), (72, 76, 82), (158, 162, 166), (225, 226, 226), (128, 24, 26), (32, 52, 104), (60, 76, 62))

Light = namedtuple('Light', 'zenith haze clouds tint shade sun')    # sun: shadow's (x, z) in metres per metre height
Road = namedtuple('Road', 'left right lane lines verges openings opposite')     # plan_road says what they hold
Thing = namedtuple('Thing', 'kind x z width length height colour variant')      # x: its middle, z: its near end


def write_scenes(folder, seed, training, testing, classes=False):
    """Write labelled scenes in KITTI's layout: folder/training and folder/testing with image_2 and gt_image_2 in each.

    folder: path that must not exist yet; it appears complete or, after an exception, not at all.
    seed: int in [0, 2**32). A scene depends on seed, split, category and number only, not on how many are drawn.
    training, testing: numbers of scenes, spread evenly over the categories.
    classes: whether the labels tell the classes of docs/demo-classes.json apart, instead of road and background.
    """
    folder = os.path.abspath(folder)
    if os.path.exists(folder):
        raise FileExistsError(f'{folder} exists already')
    parent, name = os.path.split(folder)
    with scratch_folder(parent) as scratch:
        with progress.bar(total=training + testing, desc='Draw scenes', unit='scene', leave=False) as bar:
            for split_index, (split, count) in enumerate((('training', training), ('testing', testing))):
                for kind in ('image_2', 'gt_image_2'):
                    os.makedirs(os.path.join(scratch, name, split, kind))
                for index in range(count):
                    number, category = divmod(index, len(CATEGORIES))
                    random = np.random.RandomState((seed, split_index, category, number))
                    write_scene(os.path.join(scratch, name, split), CATEGORIES[category], number, random, classes)
                    bar.update()
        os.rename(os.path.join(scratch, name), folder)


def write_scene(folder, category, number, random, classes):
    """Draw one scene and write its PNGs into folder/image_2 and folder/gt_image_2."""
    picture, road, lane, all_classes = draw_scene(category, SIZES[random.randint(len(SIZES))], random)
    scene = (picture, all_classes) if classes else (picture, road, lane)
    names = 'image_2/{}_{:06d}.png', 'gt_image_2/{}_road_{:06d}.png', 'gt_image_2/{}_lane_{:06d}.png'
    for name, pixels in zip(names, scene):
        if pixels is not None:
            imageio.imwrite(os.path.join(folder, name.format(category, number)), pixels, compress_level=1)


def draw_scene(category, size, random):
    """Draw a scene.

    category: one of CATEGORIES.
    size: (height, width) in pixels.
    random: np.random.RandomState, the only source of chance.

    Returns (picture, road, lane, classes), uint8 [height, width, 3]: the RGB picture; its labels in KITTI's colours,
    road magenta, background red, ignored pixels black, where lane is the camera's own lane for 'um', else None;
    and its labels in CLASS_COLOURS.
    """
    view, light, road = View(size, random), choose_light(random), plan_road(category, random)
    things = place_things(road, category, random)
    x, z = view.ground()
    background, is_sky = paint_background(view, light, random)
    ground = paint_ground(road, x, z, cast_shadows(things, light, random), light, random)
    canvas = Canvas(view, light, np.concatenate([background, ground]), random)
    for thing in sorted(things, key=lambda thing: -thing.z):
        if thing.z + thing.length > 4:      # what stands beside the camera only casts its shadow into the picture
            canvas.kind = CLASS_OF_KIND.get(thing.kind, OTHER)
            DRAW[thing.kind](canvas, thing)
            canvas.hide_behind_crest(thing.z)
    uncertain_from = random.uniform(45, 90) if random.rand() < 0.4 else FARTHEST    # metres
    ignored = beside_the_road(road, x, z) | ((x > road.left) & (x < road.right) & (z > uncertain_from))
    labels = []
    for left, right in ((road.left, road.right), road.lane)[:2 if category == 'um' else 1]:
        label = np.full(size, BACKGROUND, np.uint8)
        label[view.top:][(x > left) & (x < right)] = ROAD
        label[view.top:][ignored] = IGNORED
        label[np.asarray(canvas.mask) != GROUND] = BACKGROUND
        labels.append(LABEL_COLOURS[label])
    return (develop(canvas.picture, light, random), labels[0], labels[1] if labels[1:] else None,
            CLASS_COLOURS[label_classes(canvas, road, x, z, is_sky)])


def label_classes(canvas, road, x, z, is_sky):
    """What each pixel shows: rows of CLASS_COLOURS, uint8 [height, width]."""
    ground = np.full(x.shape, OTHER, np.uint8)
    material = lay_ground(road, x, z)
    ground[material == GRASS] = VEGETATION
    ground[material == ASPHALT] = DRIVABLE
    ground[(lane_paint(road, x, z) > 0.5) & (x > road.left) & (x < road.right)] = MARKING
    label = np.concatenate([np.where(is_sky, SKY, VEGETATION).astype(np.uint8), ground])
    mask = np.asarray(canvas.mask)
    return np.where(mask == GROUND, label, mask)


class View:
    """The camera and the course of the road: road coordinates to pixels and back."""

    def __init__(self, size, random):
        self.size = height, width = size
        self.focal = 0.58 * width       # pixels, as the other lengths in the picture
        self.centre = width * random.uniform(0.47, 0.51)
        self.horizon = height * random.uniform(0.43, 0.48)
        self.heading = random.normal(0, 0.015)
        self.curvature = random.choice([0.0005, 0.004, 0.004]) * random.normal()     # 1 / metres
        self.curve_end = random.uniform(50, 90)         # metres; straight from there on
        self.hill = random.choice([0.0, random.uniform(-1.5, 2.6)])     # metres; positive: uphill first
        self.hill_length = random.uniform(130, 260)     # metres
        self.distances = np.geomspace(2, FARTHEST, 4000)
        self.rows = self.row(0, self.distances)
        self.crests = np.minimum.accumulate(self.rows)
        self.top = max(int(np.ceil(self.crests[-1])), 0)    # the first row of ground

    def bend(self, z):
        """Metres by which the road has left the camera's axis at z."""
        curved = np.minimum(z, self.curve_end)
        return self.heading * z + self.curvature * curved * (z - curved / 2)

    def row(self, y, z):
        """The pixel row of what is y metres above the ground at z."""
        ground = self.hill * (1 - np.cos(2 * np.pi * z / self.hill_length))
        return self.horizon + self.focal * (CAMERA_HEIGHT - ground - y) / z

    def project(self, points):
        """Road coordinates, float [..., 3], to pixels (column, row), float [..., 2]."""
        x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
        z = np.maximum(z, 2.5)      # a wall may begin behind the camera
        return np.stack([self.centre + self.focal * (x + self.bend(z)) / z, self.row(y, z)], -1)

    def ground(self):
        """Road coordinates of the ground pixels: x float32 [height - top, width], z float32 [height - top, 1]."""
        seen = self.rows <= self.crests     # the rest hides behind a crest
        rows = np.arange(self.top, self.size[0])
        z = np.interp(rows, self.rows[seen][::-1], self.distances[seen][::-1])[:, None]
        x = (np.arange(self.size[1])[None] - self.centre) * z / self.focal - self.bend(z)
        return x.astype(np.float32), z.astype(np.float32)


class Canvas:
    """The picture and the mask of the things that stand on the ground; every stroke goes to both.

    kind: the class, a row of CLASS_COLOURS, that strokes leave in the mask; GROUND where there are none.
    """

    def __init__(self, view, light, picture, random):
        self.view, self.light = view, light
        self.bare = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        self.picture, self.mask = self.bare.copy(), Image.new('L', self.bare.size, GROUND)
        self.brushes = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.mask)
        self.kind = OTHER
        self.foliage = [grow_foliage(pointed, random) for pointed in (0, 0, 0.3, 1)]

    def fill(self, polygons, colour):
        """Fill one or several polygons of road coordinates, [corners, 3] or [polygons, corners, 3]."""
        corners = self.view.project(polygons)
        colour = tuple(haze(np.array(colour), np.min(np.asarray(polygons)[..., 2]), self.light).astype(int).tolist())
        for polygon in corners.reshape((-1,) + corners.shape[-2:]):
            outline = [tuple(corner) for corner in polygon.tolist()]
            self.brushes[0].polygon(outline, fill=colour)
            self.brushes[1].polygon(outline, fill=self.kind)

    def paste_foliage(self, thing, low):
        """Put a crown or a bush from low metres up to the thing's height."""
        x, z, half = thing.x, thing.z, thing.width / 2
        corners = self.view.project([(x - half, thing.height, z), (x + half, low, z)])
        box = np.clip(corners, 0, self.picture.size).astype(int)    # its part within the picture
        size = tuple((box[1] - box[0]).tolist())
        if min(size) < 1:
            return
        shape, brightness = self.foliage[thing.variant]
        crop = np.clip((box - corners[0]) / (corners[1] - corners[0]), 0, 1) * shape.size
        shape, brightness = (layer.resize(size, Image.BILINEAR, crop.ravel().tolist()) for layer in (shape, brightness))
        shape = shape.point([0] * 128 + [255] * 128)
        leaves = np.asarray(brightness, np.float32)[..., None] / 160 * thing.colour.astype(np.float32)
        leaves = Image.fromarray(haze(leaves, z, self.light).astype(np.uint8))
        self.picture.paste(leaves, tuple(box[0].tolist()), shape)
        self.mask.paste(self.kind, tuple(box[0].tolist()), shape)

    def hide_behind_crest(self, z):
        """Put the bare ground back over the foot of a thing at z, the nearest so far, where a crest hides it."""
        crest = np.interp(z, self.view.distances, self.view.crests)
        if z > 10 and self.view.row(0, z) > crest + 1:
            box = (0, max(int(crest), 0)) + self.picture.size
            self.picture.paste(self.bare.crop(box), box[:2])
            self.mask.paste(GROUND, box)


def haze(colour, z, light):
    """A colour, [..., 3], as the air leaves it at a distance of z metres; 0 to 255."""
    clear = np.exp(-np.maximum(z, 0) / 260)
    return np.clip(colour * clear + np.array(light.haze, np.float32) * 0.85 * (1 - clear), 0, 255)


def fractal(shape, cells, random):
    """Smooth noise, float32 of the shape, mean 0; its widest waves are cells to the height and to the width."""
    total = np.zeros(shape, np.float32)
    for octave in range(4):
        grid = random.normal(0, 0.6 ** octave, [count * 2 ** octave + 1 for count in cells]).astype(np.float32)
        total += np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.BICUBIC))
    return total


def grow_foliage(pointed, random):
    """A crown as two 'L' pictures: its shape (128 and more: leaves) and its brightness. pointed: 0 oak to 1 fir."""
    y, x = np.mgrid[-1:1:140j, -1:1:140j].astype(np.float32)
    shape, brightness = np.full(x.shape, -1, np.float32), np.zeros(x.shape, np.float32)
    for _ in range(32):
        v = random.uniform(-0.75, 0.75)
        u = random.uniform(-0.62, 0.62) * (np.sqrt(1 - v * v) * (1 - pointed) + pointed * (v + 0.8) / 1.6)
        radius = random.uniform(0.18, 0.36) * (1 - 0.35 * pointed)
        inside = 1 - ((x - u) ** 2 + (y - v) ** 2) / radius ** 2
        brightness = np.where(inside > shape, 0.8 - 0.3 * (y - v) / radius - 0.2 * y, brightness)
        shape = np.maximum(shape, inside)
    leaves = ndimage.gaussian_filter(random.normal(size=shape.shape).astype(np.float32), 0.9) * 3.4
    return [Image.fromarray(np.clip(layer, 0, 255).astype(np.uint8))
            for layer in (128 + 150 * shape + 45 * leaves, 150 * brightness + 38 * leaves)]


def choose_light(random):
    """Half of the scenes are sunny, the others overcast or in the evening."""
    weather = random.choice(['sunny', 'sunny', 'overcast', 'evening'])
    exposure = random.uniform(0.9, 1.2)
    across = random.choice([0, np.pi]) + random.normal(0, 0.6)      # shadows across the road are the hard ones
    sun = np.array((np.cos(across), np.sin(across)))
    if weather == 'overcast':
        return Light((178, 186, 196), (226, 229, 232), 1.2, np.array((0.86, 0.9, 0.95)) * exposure, 0.93, sun)
    if weather == 'evening':
        tint = np.array((1.0, 0.93, 0.85)) * exposure
        return Light((98, 118, 172), (250, 204, 156), 0.5, tint, 0.5, sun * random.uniform(2.5, 5))
    pale = random.uniform(0, 70)
    return Light((70 + pale, 122 + 0.8 * pale, 205 + 0.3 * pale), (205, 224, 242), random.uniform(0.1, 1.1),
                 np.array((1.0, 0.98, 0.93)) * exposure, random.uniform(0.48, 0.6), sun * random.uniform(0.6, 1.8))


def paint_background(view, light, random):
    """Sky, clouds, the sun's glow, hills and far woods above the ground: float32 [top, width, 3], bool: what is sky."""
    y, x = np.mgrid[:view.top, :view.size[1]].astype(np.float32)
    low, high = np.array(light.haze, np.float32), np.array(light.zenith, np.float32)
    sky = high + np.clip(y / view.horizon, 0, 1)[..., None] * (low - high)
    clouds = np.clip(fractal(y.shape, (3, 6), random) * 0.8 + light.clouds - 0.8, 0, 1)[..., None]
    sky += clouds * 0.75 * (low * 0.4 + 150 - sky)
    if light.sun[1] < 0:        # the sun stands ahead
        column, row = view.centre + view.focal * light.sun[0] / light.sun[1], view.horizon + view.focal / light.sun[1]
        glow = np.exp(-np.hypot(x - column, y - row) / (0.1 * view.size[1])) * (1 - light.shade) * 3
        sky += np.minimum(glow, 1)[..., None] * (270 - sky)
    is_sky = np.ones(y.shape, bool)
    for waves, tall, colour in ((3, 0.12, (128, 148, 172)), (10, 0.07, (104, 126, 122)), (40, 0.05, (56, 72, 52))):
        outline = np.clip(fractal((1, x.shape[1]), (0, waves), random)[0] * 0.35 + 0.6, 0, 2) * random.uniform(0.6, 1.3)
        hidden = y > view.horizon - view.size[0] * tall * outline
        sky[hidden] = np.array(colour) * 0.8 + low * 0.2
        is_sky &= ~hidden
    return sky, is_sky


def plan_road(category, random):
    """Choose lanes, verges and junctions; lengths in metres.

    Returns a Road: x of its edges left and right; lane (left, right); lines [(x, dash, gap)], a dash of 0 is solid;
    verges {side: strips}, side -1 left, 1 right; openings [(side, near, far, depth)], side roads and driveways;
    opposite: None or (median, width) of an oncoming carriageway of its own.
    """
    width = random.uniform(3.0, 3.6)
    right, opposite, lines = width / 2 - random.normal(0, 0.15), None, []
    if category == 'uu':
        right = random.uniform(1.4, 2.3)
        left = right - random.uniform(4.4, 6.4)
    else:
        ahead = 1 if category == 'um' else random.randint(2, 4)
        right += width * random.randint(ahead)
        middle = left = right - ahead * width
        dash = random.uniform(3, 6)
        lines = [(right - number * width, dash, dash * random.uniform(1, 2)) for number in range(1, ahead)]
        if category == 'umm' and random.rand() < 0.5:
            opposite = random.uniform(2, 5), random.uniform(6.4, 7.2)
        else:
            left -= width
            lines.append((middle, dash * (random.rand() < 0.7), dash))
        if random.rand() < 0.6:
            lines += [(right - 0.2, 0, 0), (left + 0.2, 0, 0)]
    verges = {-1: plan_verge(opposite, random), 1: plan_verge(None, random)}
    openings = []
    for side in (-1, 1):
        if random.rand() < 0.35 and not (side < 0 and opposite):
            near = random.uniform(9, 45)
            openings.append((side, near, near + random.uniform(3.5, 9), random.choice([7.0, 60.0])))
    return Road(left, right, (right - width, right), lines, verges, openings, opposite)


def plan_verge(opposite, random):
    """What lies beyond an edge of the road: strips [(from, to, material)] in metres from it, the last one endless."""
    widths = [(0.18, KERB)] if random.rand() < 0.8 else [(random.uniform(0.3, 0.9), SOIL)]
    if opposite:
        widths += [(opposite[0] - widths[0][0], GRASS), (opposite[1], ASPHALT), (0.18, KERB)]
    if random.rand() < 0.35:
        widths += [(random.uniform(0.8, 2.5), GRASS)]
    if random.rand() < 0.75:
        widths += [(random.uniform(1.4, 3.4), PAVING), (0.1, KERB)]
    widths += [(1000.0, random.choice([GRASS, GRASS, GRASS, SOIL]))]
    stops = np.cumsum([width for width, _ in widths])
    return [(stop - width, stop, material) for stop, (width, material) in zip(stops.tolist(), widths)]


def beside_the_road(road, x, z):
    """Where there is asphalt that is not this road, bool like x: side roads, driveways, the opposite carriageway."""
    found = np.zeros(np.broadcast(x, z).shape, bool)
    for side, near, far, depth in road.openings:
        out = x - road.right if side > 0 else road.left - x
        mouth = 2.5 * np.exp(-np.maximum(out, 0) / 1.2)     # rounded corners
        found |= (out > 0) & (out < depth) & (z > near - mouth) & (z < far + mouth)
    if road.opposite:
        out = road.left - x
        found |= (out > road.opposite[0]) & (out < sum(road.opposite))
    return found


def lay_ground(road, x, z):
    """What the ground is made of, uint8 like x."""
    material = np.full(x.shape, ASPHALT, np.uint8)
    for side, strips in road.verges.items():
        out = x - road.right if side > 0 else road.left - x
        for start, stop, kind in strips:
            material[(out > start) & (out <= stop)] = kind
    material[beside_the_road(road, x, z)] = ASPHALT
    return material


def paint_ground(road, x, z, shadows, light, random):
    """The ground, float32 [height - top, width, 3], from its road coordinates and the shadow map."""
    material = lay_ground(road, x, z)
    asphalt, paving = random.uniform(80, 118), random.uniform(150, 185)
    palette = np.array([asphalt + random.normal(0, 3, 3), paving * np.array((1.14, 0.97, 0.78)), [paving + 25] * 3,
                        (86, 102, 52) + random.normal(0, 6, 3), (138, 108, 66)], np.float32)
    fine, coarse = tile_noise(x, z, 0.012, 3, random), tile_noise(x, z, 0.5, 1, random)
    grain = 1 + np.array([0.05, 0.05, 0.06, 0.16, 0.12], np.float32)[material] * (
        fine * np.clip(22 / z, 0, 1) + 0.5 * coarse)    # far away a pixel averages over the fine grain
    joints = (material == PAVING) & ((x % 0.5 < 0.05) | (z % 0.5 < 0.05))
    grain -= 0.16 * joints * np.clip(1.5 - z / 14, 0, 1)
    wheels = np.cos((x - road.lane[0]) * (4 * np.pi / (road.lane[1] - road.lane[0])))
    on_road = (x > road.left) & (x < road.right)
    grain += on_road * (0.03 * wheels - worn_patches(x, z, random))
    colour = palette[material] * grain[..., None]
    paint = lane_paint(road, x, z) * np.clip(0.85 + 0.12 * coarse, 0, 1) * on_road
    colour += paint[..., None] * (random.uniform(205, 240) - colour)
    place = [np.broadcast_to(axis, x.shape) for axis in shadow_place(x, z)]
    shaded = ndimage.map_coordinates(shadows, place, order=1, mode='nearest')[..., None]
    colour *= 1 - shaded * (1 - light.shade * np.array([1, 1.01, 1.05], np.float32))    # the sky lights shadows blue
    return haze(colour, z[..., None], light)


def tile_noise(x, z, metres, stretch, random):
    """Noise over the ground, float32 like x, with grains that wide and stretch times as long."""
    tile = ndimage.gaussian_filter(random.normal(size=(256, 256)).astype(np.float32), 1.0, mode='wrap') * 3.5
    return tile[(z / (stretch * metres)).astype(np.int32) % 256, (x / metres).astype(np.int32) % 256]


def worn_patches(x, z, random):
    """How much darker repairs and a manhole cover make the asphalt, float32 like x."""
    darker = np.zeros(x.shape, np.float32)
    for _ in range(random.randint(4)):
        left, near = random.uniform(-5, 1.5), random.uniform(6, 30)
        right, far = left + random.uniform(0.6, 2.5), near + random.uniform(1, 12)
        darker[(x > left) & (x < right) & (z > near) & (z < far)] = random.uniform(-0.1, 0.16)
    darker[(x - random.uniform(-3, 1)) ** 2 + (z - random.uniform(7, 25)) ** 2 < 0.12] = 0.35
    return darker


def lane_paint(road, x, z):
    """How much of each pixel is paint, float32 like x; a line thinner than a pixel fades instead of breaking up."""
    paint = np.zeros(x.shape, np.float32)
    pixel = z / (0.58 * x.shape[1])     # metres
    for line, dash, gap in road.lines:
        covered = np.clip((0.075 - np.abs(x - line)) / pixel + 0.5, 0, 1) * np.minimum(0.15 / pixel, 1)
        paint = np.maximum(paint, covered * (z % (dash + gap) < dash) if dash else covered)
    return paint


def shadow_place(x, z):
    """Row and column in the shadow map: 60 m to either side in eighths of a metre, 100 m ahead in quarters."""
    return z * 4, (x + 60) * 8


def cast_shadows(things, light, random):
    """The shadow map over road coordinates, float32 [400, 960], 0 lit to 1 shaded; dappled under trees."""
    leafy, solid = Image.new('L', (960, 400)), Image.new('L', (960, 400))
    leaves, walls = ImageDraw.Draw(leafy), ImageDraw.Draw(solid)
    for thing in things:
        half, (shift_x, shift_z) = thing.width / 2, light.sun * thing.height
        if thing.kind in ('tree', 'bush'):
            row, column = shadow_place(thing.x + 0.6 * shift_x, thing.z + 0.6 * shift_z)
            leaves.ellipse((column - half * 9, row - half * 5, column + half * 9, row + half * 5), fill=255)
            walls.line([shadow_place(thing.x, thing.z)[::-1], (column, row)], fill=255, width=2)
        if thing.kind in ('car', 'house'):
            for share in np.linspace(0, 1, 9):
                (near, left), (far, right) = (
                    shadow_place(thing.x + side * half + share * shift_x, end + share * shift_z)
                    for side, end in ((-1, thing.z), (1, thing.z + thing.length)))
                walls.rectangle((left, near, right, far), fill=255)
    leafy = ndimage.gaussian_filter(np.asarray(leafy, np.float32) / 255, 1.5)
    leafy *= np.clip(fractal(leafy.shape, (40, 70), random) * 0.9 + 0.75, 0, 1)
    return np.maximum(leafy, ndimage.gaussian_filter(np.asarray(solid, np.float32) / 255, 0.8))


def place_things(road, category, random):
    """All that stands on the ground, [Thing]; only traffic stands on asphalt beside the road."""
    things = parked_cars(road, random) if random.rand() < (0.8 if category == 'uu' else 0.4) else []
    for side, edge in ((-1, road.left), (1, road.right)):
        free = max(road.verges[side][-1][0], 1.8)       # metres from the edge of the road to open ground
        found = [thing._replace(x=thing.x + free) for thing in PLACES[random.randint(len(PLACES))](random)]
        if random.rand() < 0.4:
            found += [Thing('lamp', 1.5, z, 0.1, 0.1, 7.0, (120, 124, 126), side)
                      for z in np.arange(random.uniform(8, 25), 120, 28)]
        if random.rand() < 0.6:
            found.append(Thing('sign', 1.5, random.uniform(10, 40), 0.1, 0.1, 2.4, (130, 130, 130), random.randint(3)))
        things += [thing._replace(x=edge + side * (thing.x + thing.width / 2)) for thing in found]

    def blocks(thing):
        across, along = np.linspace(-0.5, 0.5, 5) * thing.width, np.linspace(0, 1, 9)[:, None] * thing.length
        return beside_the_road(road, thing.x + across, thing.z + along).any()

    return [thing for thing in things if not blocks(thing)] + driving_cars(road, random)


def plant(kind, out, z, height, random):
    """A tree or a bush of a random green, at times autumnal, out metres beyond the verge."""
    colour = np.array((66, 92, 42)) * random.uniform(0.6, 1.25) + random.rand() ** 5 * np.array((75, 10, -8))
    width = height * (random.uniform(0.5, 0.75) if kind == 'tree' else 1.5)
    return Thing(kind, out, z, width, 0.4, height, colour, random.randint(4 if kind == 'tree' else 2))


def place_houses(random):
    """A row of houses with trees between, at times behind a hedge; x is metres beyond the verge, here and below."""
    found, z, out = [], random.uniform(-6, 8), random.uniform(0.3, 7)
    while z < 110:
        length = random.uniform(8, 18)
        wall = random.choice([175, 215, 235]) * np.array((1, random.uniform(0.88, 1), random.uniform(0.65, 0.98)))
        size = random.uniform(7, 11), length, random.uniform(4, 10)
        found.append(Thing('house', out, z, *size, colour=wall, variant=random.randint(3)))
        z += length + random.uniform(3, 12)
        found.append(plant('tree', random.uniform(0.5, 3), z - 3, random.uniform(4, 8), random))
    hedge = plant('bush', 0.2, 0, random.uniform(1.0, 1.9), random)
    return found + random.randint(2) * (out > 2) * [hedge._replace(z=z) for z in np.arange(6, 65, 1.4)]


def scatter(kind, count, out, z, height, random):
    """Trees or bushes here and there, between the given bounds in metres."""
    return [plant(kind, random.uniform(*out), random.uniform(*z), random.uniform(*height), random)
            for _ in range(count)]


def place_wood(random):
    """Many trees and undergrowth."""
    return (scatter('tree', 34, (0.3, 22), (0, 120), (7, 15), random)
            + scatter('bush', 18, (0.5, 6), (7, 70), (0.8, 2), random))


def place_meadow(random):
    """Open ground with a few bushes and trees far away."""
    return (scatter('tree', 14, (4, 60), (50, 160), (5, 11), random)
            + scatter('bush', random.randint(8), (1, 20), (8, 60), (0.6, 1.6), random))


def place_avenue(random):
    """Trees of one age in a row, with or without a fence."""
    height, step = random.uniform(6, 12), random.uniform(6, 11)
    trees = [plant('tree', 0.4, z, height * random.uniform(0.85, 1.1), random) for z in np.arange(step / 3, 130, step)]
    posts = [Thing('fence', 0.2, z, 0.1, 2.5, 1.1, (118, 98, 76), 0) for z in np.arange(5, 75, 2.5)]
    return trees + random.randint(2) * posts


PLACES = (place_houses, place_wood, place_avenue, place_meadow)


def new_car(x, z, oncoming, random):
    """Some car; it shows its rear, or its front if oncoming."""
    size = random.uniform(1.68, 1.85), random.uniform(3.9, 4.8), random.choice([1.42, 1.5, 1.65, 1.95])
    return Thing('car', x, z, *size, colour=np.array(CAR_PAINTS[random.randint(len(CAR_PAINTS))]), variant=oncoming)


def parked_cars(road, random):
    """Cars on one side, half on the verge."""
    left = not road.opposite and random.rand() < 0.4
    spots = random.uniform(7, 25) + np.cumsum(random.uniform(5.5, 12, random.randint(1, 9)))
    return [new_car((road.left - 0.5 if left else road.right + 0.5) + random.uniform(-0.2, 0.2), z, left, random)
            for z in spots]


def driving_cars(road, random):
    """Traffic ahead in the own lane and oncoming."""
    cars = [new_car(sum(road.lane) / 2, random.uniform(14, 70), False, random)] if random.rand() < 0.55 else []
    oncoming = road.left - sum(road.opposite) + 1.9 if road.opposite else road.left + 1.6
    z = random.uniform(12, 60)
    while z < 140 and random.rand() < 0.6:
        cars.append(new_car(oncoming, z, True, random))
        z += random.uniform(9, 50)
    return cars


def panels(x0, x1, z0, z1, low, high):
    """Upright rectangles over the ground lines from (x0, z0) to (x1, z1): float [n, 4, 3]; arguments broadcast."""
    corners = np.broadcast_arrays(x0, low, z0, x1, low, z1, x1, high, z1, x0, high, z0)
    return np.stack(corners, -1).astype(float).reshape(-1, 4, 3)


def draw_tree(canvas, thing):
    """A trunk and a crown."""
    trunk = 0.02 * thing.height
    canvas.fill(panels(thing.x - trunk, thing.x + trunk, thing.z, thing.z, 0, thing.height / 2), (74, 60, 46))
    canvas.paste_foliage(thing, thing.height * (0.06 if thing.variant == 3 else 0.24))


def draw_wall(canvas, x, z, height, colour):
    """A house wall over the ground line x[0], z[0] to x[1], z[1], with rows of windows."""
    canvas.fill(panels(*x, *z, low=0, high=height), colour)
    canvas.fill(panels(*x, *z, low=0, high=0.5), colour * 0.7)
    count = max(int((abs(x[1] - x[0]) + abs(z[1] - z[0])) / 2.6), 1)
    low = np.arange(1.0, height - 1.6, 2.8)[:, None]
    for margin, glass in ((0.28, colour * 0.5 + 125), (0.32, (58, 68, 80))):
        start, stop = (np.arange(count) + margin) / count, (np.arange(count) + 1 - margin) / count
        if low.size:
            canvas.fill(panels(x[0] + (x[1] - x[0]) * start, x[0] + (x[1] - x[0]) * stop, z[0] + (z[1] - z[0]) * start,
                               z[0] + (z[1] - z[0]) * stop, low + margin - 0.28, low + 1.78 - margin), glass)


def draw_house(canvas, thing):
    """The wall towards the camera, the wall towards the road and, but for flat houses, gable and roof."""
    side = np.sign(thing.x)
    inner, outer = thing.x - side * thing.width / 2, thing.x + side * thing.width / 2
    near, far, top, ridge = thing.z, thing.z + thing.length, thing.height, thing.height + 3.2
    lit = 0.8 + 0.2 * np.sign(canvas.light.sun[0] * thing.x) * (canvas.light.shade < 0.9)
    draw_wall(canvas, (inner, outer), (near, near), top, thing.colour * 0.85)
    if thing.variant:
        canvas.fill([(inner, top, near), (thing.x, ridge, near), (outer, top, near)], thing.colour * 0.82)
    draw_wall(canvas, (inner, inner), (near, far), top, thing.colour * lit)
    if thing.variant:
        eaves = inner - 0.4 * side
        canvas.fill([(eaves, top - 0.2, near - 0.3), (thing.x, ridge, near - 0.3), (thing.x, ridge, far + 0.3),
                     (eaves, top - 0.2, far + 0.3)], lit * np.array(((128, 66, 48), (92, 80, 76))[thing.variant - 1]))


def draw_fence(canvas, thing):
    """A post and two rails to the next."""
    x, z = thing.x, thing.z
    canvas.fill(panels(x, x, z, z + thing.length, [0.45, 0.9], [0.57, 1.02]), thing.colour)
    canvas.fill(panels(x - 0.05, x + 0.05, z, z, 0, thing.height), thing.colour)


def draw_lamp(canvas, thing):
    """A pole with an arm over the road."""
    x, z, side = thing.x, thing.z, thing.variant
    canvas.fill(panels([x - 0.08, x], [x + 0.08, x - 1.6 * side], z, z, [0, 6.9], 7), thing.colour)
    canvas.fill(panels(x - 1.2 * side, x - 2 * side, z, z, 6.85, 7.02), (205, 205, 196))


def disc(x, y, z, radius, corners, along):
    """A regular polygon: across the road, or along it."""
    turns = np.arange(corners) * 2 * np.pi / corners
    across, ahead = radius * np.sin(turns) * (1 - along), radius * np.sin(turns) * along
    return np.stack([x + across, y + radius * np.cos(turns), z + ahead], -1)


def draw_sign(canvas, thing):
    """A round red sign, a triangle or a blue disc."""
    x, z, y = thing.x, thing.z, thing.height
    canvas.fill(panels(x - 0.04, x + 0.04, z, z, 0, y), thing.colour)
    for radius, colour in ((0.36, (186, 30, 34)), (0.25, (236, 236, 232))):
        colour = (28, 74, 156) if thing.variant == 2 else colour
        canvas.fill(disc(x, y, z, radius, 3 if thing.variant == 1 else 16, along=0), colour)


def draw_car(canvas, thing):
    """A car along the road: an outline seen from the side, extruded across; then flank, wheels and lights."""
    x, half, roof, belt, paint = thing.x, thing.width / 2, thing.height, 0.92, thing.colour
    outline = np.array([(0, 0.28), (0, 0.84), (0.04, belt), (0.13, roof - 0.04), (0.55, roof), (0.74, belt),
                        (0.97, 0.76), (1, 0.3)])    # share of the length, metres
    colours = [paint * 0.8, paint, (40, 48, 56), paint * 1.1 + 12, (44, 54, 62), paint, paint * 0.7]
    if thing.variant:
        outline, colours = np.abs(outline[::-1] - (1, 0)), colours[::-1]
    z, y = thing.z + outline[:, 0] * thing.length, outline[:, 1]
    wide = half * (1 - 0.3 * np.maximum(y - belt, 0) / (roof - belt))
    tyres = panels(half * np.array((-0.9, -0.7, 0.65)), half * np.array((-0.65, 0.7, 0.9)), 0.2, 0.2, (0, 0.14, 0), 0.4)
    canvas.fill(tyres + (x, 0, thing.z), (22, 22, 24))
    for k in range(len(colours))[::-1]:
        canvas.fill([(x - wide[k], y[k], z[k]), (x + wide[k], y[k], z[k]), (x + wide[k + 1], y[k + 1], z[k + 1]),
                     (x - wide[k + 1], y[k + 1], z[k + 1])], colours[k])
    flank = -np.sign(x + canvas.view.bend(thing.z))     # the side that the camera sees
    cabin = y >= belt
    canvas.fill(np.stack([0 * z + x + flank * half, np.minimum(y, belt), z], -1), paint * 0.88)
    for height, colour in ((1, paint * 0.95), (0.85, (36, 42, 50))):
        canvas.fill(np.stack([x + flank * wide, belt + (y - belt) * height, z], -1)[cabin], colour)
    for axle in (0.18, 0.8):
        for radius, colour in ((0.32, (24, 24, 26)), (0.18, (120, 122, 126))):
            canvas.fill(disc(x + flank * half, 0.32, thing.z + axle * thing.length, radius, 14, along=1), colour)
    end = thing.z - 0.02
    low, high, lamps = (0.58, 0.72, (250, 246, 226)) if thing.variant else (0.62, 0.84, (190, 26, 24))
    canvas.fill(panels(x - half, x + half, end, end, 0.28, low - 0.06), paint * 0.7)
    canvas.fill(panels(x + half * np.array((-1, 0.65)), x + half * np.array((-0.65, 1)), end, end, low, high), lamps)
    canvas.fill(panels(x - 0.26, x + 0.26, end, end, 0.42, 0.54), (232, 232, 226))


DRAW = {'tree': draw_tree, 'bush': lambda canvas, thing: canvas.paste_foliage(thing, -0.12 * thing.height),
        'house': draw_house, 'fence': draw_fence, 'lamp': draw_lamp, 'sign': draw_sign, 'car': draw_car}


def develop(picture, light, random):
    """What the camera adds: the tint of the light, blur and sensor noise; uint8 [height, width, 3]."""
    pixels = np.asarray(picture, np.float32) * light.tint.astype(np.float32)
    blurred = ndimage.gaussian_filter(pixels, (0.6, 0.6, 0), truncate=2)
    noise = random.normal(0, 2.5, blurred.shape[:2] + (1,)).astype(np.float32)
    return np.clip(blurred + noise, 0, 255).astype(np.uint8)
