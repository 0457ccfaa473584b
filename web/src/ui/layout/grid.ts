// Where the tiles go: pure arithmetic over CSS pixels, no DOM.
//
// A tile may be any shape between the narrowest and the widest named below, so that few people fill the room they have and
// many still look like people. A short last row is centred.

export interface Size {
  width: number;
  height: number;
}

/** A rectangle in CSS pixels from the container's upper left corner. */
export interface Rect extends Size {
  left: number;
  top: number;
}

/** Where everything goes for one container. */
export interface StageLayout {
  /** The tile on the stage, or null when everyone is in the grid. */
  stage: Rect | null;
  /** The other tiles, in order. */
  tiles: Rect[];
}

/** Narrowest tile, width over height: upright as a phone's camera where the container is upright, else not so
 * narrow that a usual camera's picture loses its sides. */
const ASPECT_MIN_UPRIGHT = 3 / 4;
const ASPECT_MIN_WIDE = 5 / 4;
/** Widest tile: as most cameras. */
const ASPECT_MAX = 16 / 9;
/** Tiles smaller than this are not worth their bandwidth: further people go to the next page. */
const TILE_WIDTH_MIN = 150;
const TILE_HEIGHT_MIN = 84;
/** More pictures at once than this are too many for a laptop to decode and for a person to look at. */
export const TILES_MAX = 16;
/** Below this width a container is a phone's: two columns, however many people. */
const PHONE_WIDTH = 560;
const PHONE_COLUMNS_MAX = 2;
/** Width over height from which the strip of faces stands beside the stage instead of below it. */
const STRIP_BESIDE_ASPECT = 1.15;
/** Share of the container's width or height that the strip takes at most, and its bounds in pixels. */
const STRIP_SHARE = 0.2;
const STRIP_BESIDE_MIN = 150;
const STRIP_BELOW_MIN = 80;
const STRIP_MAX = 240;

function columnsMax(box: Size, gap: number): number {
  const fitting = Math.max(1, Math.floor((box.width + gap) / (TILE_WIDTH_MIN + gap)));
  return box.width < PHONE_WIDTH ? Math.min(fitting, PHONE_COLUMNS_MAX) : fitting;
}

/** How many tiles the grid shows at once in a container; at least one. */
export function gridCapacity(box: Size, gap: number): number {
  const rows = Math.max(1, Math.floor((box.height + gap) / (TILE_HEIGHT_MIN + gap)));
  return Math.min(TILES_MAX, columnsMax(box, gap) * rows);
}

/** The shape of a tile that has `cell` to fill. */
function fit(cell: Size, box: Size): Size {
  const aspect = cell.width / cell.height;
  const narrowest = box.width > box.height ? ASPECT_MIN_WIDE : ASPECT_MIN_UPRIGHT;
  if (aspect > ASPECT_MAX) return { width: cell.height * ASPECT_MAX, height: cell.height };
  if (aspect < narrowest) return { width: cell.width, height: cell.width / narrowest };
  return cell;
}

function cellOf(count: number, columns: number, box: Size, gap: number): Size {
  const rows = Math.ceil(count / columns);
  return {
    width: Math.max(1, (box.width - gap * (columns - 1)) / columns),
    height: Math.max(1, (box.height - gap * (rows - 1)) / rows),
  };
}

/** The columns with which `count` tiles are largest; fewer columns win a tie. */
export function bestColumns(count: number, box: Size, gap: number): number {
  let best = 1;
  let bestArea = 0;
  for (let columns = 1; columns <= Math.min(count, columnsMax(box, gap)); columns++) {
    const tile = fit(cellOf(count, columns, box, gap), box);
    const area = tile.width * tile.height;
    if (area > bestArea * 1.001) {
      best = columns;
      bestArea = area;
    }
  }
  return best;
}

/** All tiles alike, as large as they can be, centred. */
export function layoutGrid(count: number, box: Size, gap: number): Rect[] {
  if (count <= 0 || box.width <= 0 || box.height <= 0) return [];
  const columns = bestColumns(count, box, gap);
  const rows = Math.ceil(count / columns);
  const tile = fit(cellOf(count, columns, box, gap), box);
  const top = (box.height - rows * tile.height - (rows - 1) * gap) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / columns);
    const inRow = row === rows - 1 ? count - row * columns : columns;
    const left = (box.width - inRow * tile.width - (inRow - 1) * gap) / 2;
    return {
      left: left + (index % columns) * (tile.width + gap),
      top: top + row * (tile.height + gap),
      width: tile.width,
      height: tile.height,
    };
  });
}

interface Strip {
  beside: boolean;
  /** Of one face in it. */
  tile: Size;
}

/** The strip with faces as large as `count` of them can be, within its bounds. */
function stripOf(count: number, box: Size, gap: number): Strip {
  const beside = box.width / box.height >= STRIP_BESIDE_ASPECT;
  const aspect = beside ? ASPECT_MAX : 1;
  const [along, across, least] = beside
    ? [box.height, box.width, STRIP_BESIDE_MIN]
    : [box.width, box.height, STRIP_BELOW_MIN];
  // Beside the stage a face's width is the strip's, below it a face is square: either way `across` is `width`.
  const fitting = ((along - gap * (count - 1)) / count) * aspect;
  const width = Math.min(Math.max(least, Math.min(fitting, across * STRIP_SHARE, STRIP_MAX)), across / 2);
  return { beside, tile: { width, height: width / aspect } };
}

/** How many faces the strip beside or below the stage shows at once; at least one. */
export function stripCapacity(box: Size, gap: number): number {
  const { beside, tile } = stripOf(TILES_MAX, box, gap);
  const fitting = beside
    ? Math.floor((box.height + gap) / (tile.height + gap))
    : Math.floor((box.width + gap) / (tile.width + gap));
  return Math.max(1, Math.min(TILES_MAX - 1, fitting));
}

/** One tile on the stage and the others in a strip: beside it where there is width, else below. */
export function layoutStage(others: number, box: Size, gap: number): StageLayout {
  if (box.width <= 0 || box.height <= 0) return { stage: null, tiles: [] };
  if (others === 0) return { stage: { left: 0, top: 0, ...box }, tiles: [] };
  const count = Math.min(others, stripCapacity(box, gap));
  const { beside, tile } = stripOf(count, box, gap);
  if (beside) {
    const top = (box.height - count * tile.height - (count - 1) * gap) / 2;
    return {
      stage: { left: 0, top: 0, width: box.width - tile.width - gap, height: box.height },
      tiles: Array.from({ length: count }, (_, index) => ({
        left: box.width - tile.width,
        top: top + index * (tile.height + gap),
        ...tile,
      })),
    };
  }
  const left = (box.width - count * tile.width - (count - 1) * gap) / 2;
  return {
    stage: { left: 0, top: 0, width: box.width, height: box.height - tile.height - gap },
    tiles: Array.from({ length: count }, (_, index) => ({
      left: left + index * (tile.width + gap),
      top: box.height - tile.height,
      ...tile,
    })),
  };
}
