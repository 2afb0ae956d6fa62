"""Synthetic road scenes in the layout of the KITTI road benchmark, so that the program runs without any data.

A scene is planned in road coordinates, in metres: x to the right of the camera, y above the ground, z ahead, along a
road that may turn and climb. It is drawn as a picture and, with the same strokes, as a map of the surfaces that the
pixels show, from which the labels follow. The ground is painted by inverse perspective, every pixel asking what lies at
its (x, z); then the things on it are drawn from far to near.
"""
import os
from collections import namedtuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fcn8 import progress
from fcn8.data import images
from fcn8.data.classes import BACKGROUND, IGNORED, ROAD
from fcn8.files import scratch_folder

CATEGORIES = ('um', 'umm', 'uu')  # urban marked (two lanes), urban multiple marked lanes, urban unmarked
SIZES = ((375, 1242),) * 5 + ((370, 1224), (374, 1238), (376, 1241))  # height, width in pixels
CAMERA_HEIGHT = 1.65  # metres
NEAREST, FARTHEST = 2.5, 400.0  # metres ahead; what is nearer lies below the picture, the ground ends at the farthest

# The colours of docs/demo-classes.json
OTHER, SKY, DRIVABLE, MARKING = (0, 0, 0), (70, 130, 180), (128, 64, 128), (255, 255, 255)
VEGETATION, BUILDING = (107, 142, 35), (70, 70, 70)

# The surfaces that a pixel can show, and the colour of each in the labels: in KITTI's, and in those of the classes.
ASPHALT, PAINT, OTHER_ASPHALT, PAVING, KERB, GRASS, SOIL, AIR, LEAVES, WALL, CAR = range(11)
LABEL_COLOURS = np.array([ROAD, ROAD, IGNORED] + [BACKGROUND] * 8, np.uint8)
CLASS_COLOURS = np.array([DRIVABLE, MARKING, DRIVABLE, OTHER, OTHER, VEGETATION, OTHER, SKY, VEGETATION, BUILDING,
                          OTHER], np.uint8)

CAR_PAINTS = ((38, 40, 46), (72, 76, 82), (158, 162, 166), (225, 226, 226), (128, 24, 26), (32, 52, 104), (60, 76, 62))
ROOFS = ((128, 66, 48), (92, 80, 76))
GLASS, TYRES, BARK = (50, 60, 70), (22, 22, 24), (74, 60, 46)

# zenith, horizon: colours of the sky; clouds: how much of it they cover; tint: the colour of the light; shade: how much
# of the light reaches the shadows; sun: (x, z) of the shadow of a metre of height, in the following its length.
Light = namedtuple('Light', 'zenith horizon clouds tint shade sun')
SUNNY = Light((85, 140, 215), (205, 224, 242), 0.6, (1.0, 0.98, 0.93), 0.54, 1.2)
OVERCAST = Light((178, 186, 196), (226, 229, 232), 1.2, (0.86, 0.9, 0.95), 0.93, 1)
EVENING = Light((98, 118, 172), (250, 204, 156), 0.5, (1.0, 0.93, 0.85), 0.5, 3)

# left, right: x of its edges; lines: [(x, dash, gap)]; verges: on the left and on the right, see plan_verge; crossing:
# (near, far) of a road across it; oncoming: x of the oncoming cars.
Road = namedtuple('Road', 'left right lines verges crossing oncoming')
# kind: a key of DRAW; x, z: the middle of its near end.
Thing = namedtuple('Thing', 'kind x z width length height colour oncoming')


def write_scenes(folder, seed, training, testing, classes=False):
    """Write labelled scenes in KITTI's layout: folder/training and folder/testing with image_2 and gt_image_2 in each.

    folder: path that must not exist yet; it appears complete or, after an exception, not at all.
    seed: int in [0, 2**32). A scene depends on seed, split, category and number only, not on how many are drawn.
    training, testing: numbers of scenes, spread evenly over the categories.
    classes: whether the labels are those of docs/demo-classes.json, instead of road and background.

    Raises UserError if they cannot be written.
    """
    folder = os.path.abspath(folder)
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
    picture, surfaces = draw_scene(category, SIZES[random.randint(len(SIZES))], random)
    label = (CLASS_COLOURS if classes else LABEL_COLOURS)[surfaces]
    for name, pixels in (('image_2/{}_{:06d}.png', picture), ('gt_image_2/{}_road_{:06d}.png', label)):
        images.write_picture(os.path.join(folder, name.format(category, number)), pixels)


def draw_scene(category, size, random):
    """Draw a scene.

    category: one of CATEGORIES.
    size: (height, width) in pixels.
    random: np.random.RandomState, the only source of chance.

    Returns the RGB picture, uint8 [height, width, 3], and the surfaces that its pixels show, uint8 [height, width].
    """
    view, light, road = View(size, random), choose_light(random), plan_road(category, random)
    things = place_things(road, random)
    x, z = view.ground()
    ground = lay_ground(road, x, z)
    ground_colours = paint_ground(ground, x, z, cast_shadows(view, things, light, random), light, random)
    background, background_colours = paint_background(view, light, random)
    canvas = Canvas(view, light, np.concatenate([background_colours, ground_colours]),
                    np.concatenate([background, ground]))
    for thing in sorted(things, key=lambda thing: -thing.z):
        if thing.z > NEAREST:  # nearer ones only cast their shadows into the picture
            DRAW[thing.kind](canvas, thing, random)
    surfaces = np.asarray(canvas.surfaces)
    return develop(canvas.picture, surfaces, light, random), surfaces


class View:
    """The camera and the course of the road: road coordinates to pixels and back."""

    def __init__(self, size, random):
        self.size = height, width = size
        self.focal = 0.58 * width  # pixels, as the other lengths in the picture
        self.centre = width * random.uniform(0.47, 0.51)
        self.horizon = height * random.uniform(0.43, 0.48)
        self.heading = random.normal(0, 0.015)
        self.turn = random.choice([0.0005, 0.004, 0.004]) * random.normal()  # 1 / metres, to the right
        self.climb = random.choice([0.0, random.uniform(-0.0008, 0.001)])  # a steeper descent would hide the road
        self.straight_from = random.uniform(50, 60)  # metres; from there on it goes straight, up or down as it may be
        self.top = int(np.ceil(self.row(0, FARTHEST)))  # the first row of ground

    def deviation(self, curvature, z):
        """Metres by which a road of this curvature has left the straight line at z."""
        curved = np.minimum(z, self.straight_from)
        return curvature * curved * (z - curved / 2)

    def bend(self, z):
        """Metres by which the road has left the camera's axis at z."""
        return self.heading * z + self.deviation(self.turn, z)

    def side(self, x, z):
        """The side of the camera on which something is, -1 left or 1 right."""
        return 1 if x + self.bend(z) > 0 else -1

    def row(self, y, z):
        """The pixel row of what is y metres above the ground at z."""
        return self.horizon + self.focal * (CAMERA_HEIGHT - y - self.deviation(self.climb, z)) / z

    def project(self, points):
        """Road coordinates, float [..., 3], to pixels (column, row), float [..., 2]."""
        points = np.asarray(points, float)
        x, y, z = points[..., 0], points[..., 1], np.maximum(points[..., 2], NEAREST)
        return np.stack([self.centre + self.focal * (x + self.bend(z)) / z, self.row(y, z)], -1)

    def ground(self):
        """Road coordinates of the ground pixels: x float32 [height - top, width], z float32 [height - top, 1]."""
        distances = np.geomspace(FARTHEST, 1, 4000)
        z = np.interp(np.arange(self.top, self.size[0]), self.row(0, distances), distances)[:, None]
        x = (np.arange(self.size[1])[None] - self.centre) * z / self.focal - self.bend(z)
        return x.astype(np.float32), z.astype(np.float32)


class Canvas:
    """The picture, and the surfaces that its pixels show; every stroke goes to both."""

    def __init__(self, view, light, picture, surfaces):
        self.view, self.light = view, light
        self.picture = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))
        self.surfaces = Image.fromarray(surfaces)
        self.brushes = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.surfaces)

    def stroke(self, shape, corners, colour, surface):
        """Draw a shape of ImageDraw, 'polygon' or 'ellipse', with corners in pixels, [corners, 2]."""
        corners = [tuple(corner) for corner in corners.tolist()]
        for brush, fill in zip(self.brushes, (tuple(int(channel) for channel in colour), surface)):
            getattr(brush, shape)(corners, fill=fill)

    def polygon(self, corners, colour, surface):
        """Fill a polygon of road coordinates, [corners, 3]."""
        self.stroke('polygon', self.view.project(corners), colour, surface)

    def discs(self, centres, radii, colours, surface):
        """Fill discs that face the camera: [discs, 3] in road coordinates, metres [discs], [discs, 3]."""
        middles, reaches = self.view.project(centres), (self.view.focal * radii / centres[:, 2])[:, None]
        for low, high, colour in zip(middles - reaches, middles + reaches, colours):
            self.stroke('ellipse', np.stack([low, high]), colour, surface)

    def block(self, place, size, reach, colour, surface, left_at_top=(1, 1)):
        """Draw the top, the flank and the near end of a block.

        place: x, z of the middle of its near end.
        size: width and length.
        reach: its lowest and highest metre above the ground.
        left_at_top: the shares of width and length that are left there; a roof narrows.
        """
        (x, z), (width, length), (low, high) = place, size, reach
        side, colour = self.view.side(x, z), np.array(colour)

        def corners(y, across, along):
            return [(x + side * width / 2 * across * i, y, z + length / 2 * (1 + along * k))
                    for i, k in ((-1, -1), (-1, 1), (1, 1), (1, -1))]

        bottom, top = corners(low, 1, 1), corners(high, *left_at_top)
        shaded = self.light.sun[0] * side < 0
        self.polygon(top, colour, surface)
        self.polygon([*bottom[:2], *top[1::-1]], colour * (0.5 + self.light.shade / 2 if shaded else 1), surface)
        self.polygon([bottom[0], bottom[3], top[3], top[0]], colour * 0.85, surface)


def fractal(shape, cells, random):
    """Smooth noise, float32 of the shape, mean 0; its widest waves are cells to the height and to the width."""
    total = np.zeros(shape, np.float32)
    for octave in range(4):
        grid = random.normal(0, 0.6 ** octave, [count * 2 ** octave + 1 for count in cells]).astype(np.float32)
        total += np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.BICUBIC))
    return total


def choose_light(random):
    """Half of the scenes are sunny, the others overcast or in the evening."""
    light = (SUNNY, SUNNY, OVERCAST, EVENING)[random.randint(4)]
    angle = random.choice([0, np.pi]) + random.normal(0, 0.6)  # shadows across the road are the hard ones
    sun = np.array((np.cos(angle), np.sin(angle))) * light.sun * random.uniform(0.6, 1.5)
    return light._replace(clouds=light.clouds * random.uniform(0.5, 1.5), sun=sun,
                          tint=np.array(light.tint, np.float32) * random.uniform(0.9, 1.2))


def paint_background(view, light, random):
    """The sky, hills and far woods: their surfaces, uint8 [top, width], and colours, float32 [top, width, 3]."""
    y = np.arange(view.top, dtype=np.float32)[:, None] / view.top  # 0 at the top of the picture to 1 at the ground
    low, high = np.array(light.horizon, np.float32), np.array(light.zenith, np.float32)
    clouds = np.clip(fractal((view.top, view.size[1]), (3, 6), random) * 0.8 + light.clouds - 0.8, 0, 1)[..., None]
    colours = high + y[..., None] * (low - high)
    colours = colours + clouds * 0.75 * (low * 0.4 + 150 - colours)
    surfaces = np.full(clouds.shape[:2], AIR, np.uint8)
    for height, waves, colour in ((0.2, 4, (128, 148, 172)), (0.1, 40, (56, 72, 52))):
        outline = 1 - height * np.clip(1 + 0.5 * fractal((1, view.size[1]), (0, waves), random), 0, 3)
        colours[y > outline] = np.array(colour) * 0.8 + low * 0.2
        surfaces[y > outline] = GRASS
    return surfaces, colours


def plan_road(category, random):
    """Choose lanes, verges and a crossing road."""
    marked, many = category != 'uu', category == 'umm'
    width = random.uniform(3.0, 3.6) if marked else random.uniform(2.3, 3.1)  # of a lane
    lanes = random.randint(2, 4) if many else 1  # in the direction of the camera, which is in one of them
    right = width * (0.5 + random.randint(lanes)) + random.normal(0, 0.15)
    middle = right - lanes * width
    divided = many and random.rand() < 0.5  # the opposite direction has a road of its own, beyond a strip of grass
    left = middle if divided else middle - width
    lines = []
    if marked:
        dash = random.uniform(3, 6)
        lines += [(right - number * width, dash, dash * random.uniform(1, 2)) for number in range(1, lanes)]
        if not divided:
            lines.append((middle, dash, dash * random.randint(2)))
        if random.rand() < 0.6:
            lines += [(left + 0.2, 1, 0), (right - 0.2, 1, 0)]
    opposite, oncoming = [], left + width / 2
    if divided:
        strip = random.uniform(2, 5)
        opposite, oncoming = [(strip, GRASS), (2 * width, OTHER_ASPHALT), (0.2, KERB)], left - strip - 1.5 * width
    near = random.uniform(9, 45) if random.rand() < 0.4 else FARTHEST
    return Road(left, right, lines, (plan_verge(opposite, random), plan_verge([], random)),
                (near, near + random.uniform(4, 9)), oncoming)


def plan_verge(opposite, random):
    """What lies beyond an edge of the road: strips [(width in metres, surface)] from there on, the last one endless.

    opposite: the strips of a road of the opposite direction, or [].
    """
    strips = [(0.2, KERB) if random.rand() < 0.8 else (0.6, SOIL)] + opposite
    if random.rand() < 0.35:
        strips.append((random.uniform(0.8, 2.5), GRASS))
    if random.rand() < 0.75:
        strips.append((random.uniform(1.4, 3.4), PAVING))
    return strips + [(np.inf, random.choice([GRASS, GRASS, GRASS, SOIL]))]


def lay_ground(road, x, z):
    """The surfaces of the ground, uint8 like x, from its road coordinates."""
    surfaces = np.full(x.shape, ASPHALT, np.uint8)
    for line, dash, gap in road.lines:
        surfaces[(np.abs(x - line) < 0.075) & (z % (dash + gap) < dash)] = PAINT
    near, far = road.crossing
    for beyond, strips in zip((road.left - x, x - road.right), road.verges):  # metres beyond the edge
        start = 0
        for width, surface in strips:
            surfaces[beyond > start] = surface
            start += width
        surfaces[(beyond > 0) & (z > near) & (z < far)] = OTHER_ASPHALT
    return surfaces


def paint_ground(surfaces, x, z, shadows, light, random):
    """The colours of the ground, float32 [height - top, width, 3], from its surfaces, coordinates and shadows."""
    asphalt, paving = random.uniform(80, 118), random.uniform(150, 185)
    colours = np.array([[asphalt] * 3, [random.uniform(205, 240)] * 3, [asphalt] * 3,
                        paving * np.array((1.14, 0.97, 0.78)), [paving + 25] * 3, (86, 102, 52), (138, 108, 66)])
    roughness = np.array([0.03, 0.03, 0.03, 0.06, 0.04, 0.14, 0.1], np.float32)
    tile = fractal((256, 256), (32, 32), random)  # repeated over the ground
    grain = tile[(z / 0.2).astype(int) % 256, (x / 0.1).astype(int) % 256 - 128]
    colours = colours[surfaces] * (1 + roughness[surfaces] * grain)[..., None]
    colours *= 1 - shadows[..., None] * (1 - light.shade)
    return colours


def cast_shadows(view, things, light, random):
    """How deep the ground pixels are in the shadow of things, float32 [height - top, width], 0 lit to 1 shaded."""
    shadows = Image.new('L', view.size[::-1])
    brush = ImageDraw.Draw(shadows)
    circle = np.array([(np.cos(turn), np.sin(turn)) for turn in np.linspace(0, 2 * np.pi, 9)])
    for thing in things:
        tip = light.sun * thing.height  # where the shadow ends, seen from the foot
        foot = np.array([(-1, 0), (1, 0), (1, 1), (-1, 1)]) * (thing.width / 2, thing.length) + (thing.x, thing.z)
        if thing.kind == 'tree':  # light falls through between its boughs
            boughs = tip * random.uniform(0.3, 1, (40, 1)) + random.normal(0, thing.width / 5, (40, 2))
            shadow = boughs[:, None] + (thing.x, thing.z) + thing.width / 9 * circle
        else:  # the foot, and from each of its sides to the tip
            shadow = [foot] + [(start, stop, stop + tip, start + tip) for start, stop in zip(foot, np.roll(foot, 1, 0))]
        for outline in view.project(np.insert(shadow, 1, 0, axis=-1)).tolist():
            brush.polygon([tuple(corner) for corner in outline], fill=255)
    return np.asarray(shadows.filter(ImageFilter.GaussianBlur(2)), np.float32)[view.top:] / 255


def place_things(road, random):
    """All that stands on the ground, [Thing]."""
    things = place_cars(road, random)
    for side, edge, strips in zip((-1, 1), (road.left, road.right), road.verges):
        field = max(sum(width for width, _ in strips[:-1]), 1.8)  # metres beyond the edge of the road
        place = (place_houses, place_avenue, place_wood)[random.randint(3)]
        things += [thing._replace(x=edge + side * (field + thing.x + thing.width / 2)) for thing in place(random)]
    near, far = road.crossing
    return [thing for thing in things if thing.z + thing.length < near or thing.z > far]


def place_houses(random):
    """A row of houses with trees between; x is in metres beyond the verge, here and in the other places."""
    found, z, x = [], random.uniform(3, 12), random.uniform(0.3, 7)
    while z < 110:
        length = random.uniform(8, 18)
        wall = random.choice([175, 215, 235]) * np.array((1, random.uniform(0.88, 1), random.uniform(0.65, 0.98)))
        found.append(Thing('house', x, z, random.uniform(7, 11), length, random.uniform(4, 10), wall, False))
        z += length + random.uniform(3, 12)
        found.append(new_tree(random.uniform(0.5, 3), z - 3, random.uniform(4, 8), random))
    return found


def place_avenue(random):
    """Trees of one age in a row."""
    height, step = random.uniform(6, 12), random.uniform(6, 11)
    return [new_tree(0.4, z, height * random.uniform(0.85, 1.1), random) for z in np.arange(step / 3, 130, step)]


def place_wood(random):
    """Trees and bushes, few or many."""
    return [new_tree(random.uniform(0.3, 25), random.uniform(0, 130), random.uniform(1, 14), random)
            for _ in range(random.randint(8, 50))]


def new_tree(x, z, height, random):
    """A tree of a random green, at times autumnal."""
    colour = np.array((66, 92, 42)) * random.uniform(0.6, 1.25) + random.rand() ** 5 * np.array((75, 10, -8))
    return Thing('tree', x, z, 0.6 + height * random.uniform(0.45, 0.7), 0.4, height, colour, False)


def place_cars(road, random):
    """Cars ahead of the camera, oncoming, and parked on the right, half on the verge."""
    cars = [new_car(0, random.uniform(14, 70), False, random)] if random.rand() < 0.55 else []
    for z in np.cumsum(random.uniform(12, 50, random.randint(4))):
        cars.append(new_car(road.oncoming, z, True, random))
    if random.rand() < 0.5:
        for z in random.uniform(7, 25) + np.cumsum(random.uniform(5.5, 12, random.randint(1, 9))):
            cars.append(new_car(road.right + random.uniform(0.3, 0.7), z, False, random))
    return cars


def new_car(x, z, oncoming, random):
    """Some car."""
    size = random.uniform(1.68, 1.85), random.uniform(3.9, 4.8), random.choice([1.42, 1.5, 1.65, 1.95])
    return Thing('car', x, z, *size, colour=CAR_PAINTS[random.randint(len(CAR_PAINTS))], oncoming=oncoming)


def draw_tree(canvas, tree, random):
    """A trunk, and a crown of discs that are brighter the higher they are."""
    canvas.block((tree.x, tree.z), (0.04 * tree.height, 0), (0, tree.height / 2), BARK, LEAVES)
    low = max(0.3 * tree.height - 0.8, 0)  # metres; a bush has leaves down to the ground
    count = int(np.clip(1500 / tree.z, 30, 100))  # large discs are good enough far away
    up = np.linspace(-1, 1, count)
    across = np.sqrt(1 - up ** 2) * random.uniform(-1, 1, count)
    centres = np.stack([tree.x + across * 0.4 * tree.width, low + (tree.height - low) * (0.5 + 0.4 * up),
                        np.full(count, tree.z)], axis=1)
    radii = tree.width * random.uniform(0.6, 1.3, count) / np.sqrt(count)
    brightness = 0.8 + 0.3 * up + random.uniform(-0.25, 0.25, count)
    canvas.discs(centres, radii, brightness[:, None] * tree.colour, LEAVES)


def draw_house(canvas, house, random):
    """A roof, and walls with windows before its eaves."""
    x, z, width, length, height = house[1:6]
    canvas.block((x, z - 0.3), (width + 0.6, length + 0.6), (height - 0.1, height + 3),
                 ROOFS[random.randint(len(ROOFS))], WALL, left_at_top=(0, 0.8))
    canvas.block((x, z), (width, length), (0, height), house.colour, WALL)
    side = canvas.view.side(x, z)
    inner, outer = x - side * width / 2, x + side * width / 2
    draw_windows(canvas, (inner, z), (outer, z), height)
    draw_windows(canvas, (inner, z), (inner, z + length), height)


def draw_windows(canvas, start, stop, height):
    """Rows of windows in a wall over the ground line from start to stop, each (x, z)."""
    wall = np.array(stop) - start
    count = int(np.abs(wall).sum() / 2.6)
    for low in np.arange(1.0, height - 1.6, 2.8):
        for number in range(count):
            (x0, z0), (x1, z1) = (start + wall * (number + share) / count for share in (0.3, 0.7))
            canvas.polygon([(x0, low, z0), (x1, low, z1), (x1, low + 1.5, z1), (x0, low + 1.5, z0)], GLASS, WALL)


def draw_car(canvas, car, _):
    """A body on tyres, a cabin of glass with a roof, and lamps."""
    x, z, width, length, height = car[1:6]
    belt = 0.92  # metres; the lower edge of the windows
    canvas.block((x, z + 0.3), (width * 0.95, length - 0.6), (0, 0.3), TYRES, CAR)
    canvas.block((x, z), (width, length), (0.25, belt), car.colour, CAR)
    canvas.block((x, z + 0.12 * length), (width * 0.94, 0.68 * length), (belt, height), GLASS, CAR,
                 left_at_top=(0.8, 0.7))
    canvas.block((x, z + 0.22 * length), (width * 0.76, 0.48 * length), (height - 0.04, height), car.colour, CAR)
    lamp = (250, 246, 226) if car.oncoming else (190, 26, 24)
    for side in (-1, 1):
        canvas.block((x + side * 0.4 * width, z), (0.18 * width, 0), (0.6, 0.78), lamp, CAR)


DRAW = {'tree': draw_tree, 'house': draw_house, 'car': draw_car}


def develop(picture, surfaces, light, random):
    """What the camera adds: the tint of the light and noise, more of it in leaves; uint8 [height, width, 3]."""
    noise = random.normal(size=surfaces.shape).astype(np.float32) * np.where(surfaces == LEAVES, np.float32(15), 3)
    return np.clip(np.asarray(picture) * light.tint + noise[..., None], 0, 255).astype(np.uint8)
