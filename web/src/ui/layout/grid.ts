// Where the tiles go: pure arithmetic over CSS pixels, no DOM.
//
// A tile may be any shape between `ASPECT_MIN` and `ASPECT_MAX`, so that few people fill the room they have and
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

/** Narrowest tile, width over height: upright, as a phone's camera. */
const ASPECT_MIN = 3 / 4;
/** Widest tile: as most cameras. */
const ASPECT_MAX = 16 / 9;
/** Tiles smaller than this are not worth their bandwidth: further people go to the next page. */
const TILE_WIDTH_MIN = 150;
const TILE_HEIGHT_MIN = 100;
/** More pictures at once than this are too many for a laptop to decode and for a person to look at. */
export const TILES_MAX = 16;
/** Below this width a container is a phone's: two columns, however many people. */
const PHONE_WIDTH = 560;
const PHONE_COLUMNS_MAX = 2;
/** Width over height from which the strip of faces stands beside the stage instead of below it. */
const STRIP_BESIDE_ASPECT = 1.15;
/** Share of the container's longer side that the strip takes, and its bounds in pixels. */
const STRIP_SHARE = 0.2;
const STRIP_MIN = 96;
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
function fit(cell: Size): Size {
  const aspect = cell.width / cell.height;
  if (aspect > ASPECT_MAX) return { width: cell.height * ASPECT_MAX, height: cell.height };
  if (aspect < ASPECT_MIN) return { width: cell.width, height: cell.width / ASPECT_MIN };
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
    const tile = fit(cellOf(count, columns, box, gap));
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
  const tile = fit(cellOf(count, columns, box, gap));
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
  /** Across the strip. */
  thickness: number;
  tile: Size;
  capacity: number;
}

function stripOf(box: Size, gap: number): Strip {
  const beside = box.width / box.height >= STRIP_BESIDE_ASPECT;
  const along = beside ? box.height : box.width;
  const across = beside ? box.width : box.height;
  const thickness = Math.min(STRIP_MAX, Math.max(STRIP_MIN, across * STRIP_SHARE), across / 2);
  const tile = beside
    ? { width: thickness, height: thickness / ASPECT_MAX }
    : { width: thickness, height: thickness };
  const length = beside ? tile.height : tile.width;
  const capacity = Math.max(1, Math.floor((along + gap) / (length + gap)));
  return { beside, thickness, tile, capacity: Math.min(TILES_MAX - 1, capacity) };
}

/** How many faces the strip beside or below the stage shows at once. */
export function stripCapacity(box: Size, gap: number): number {
  return stripOf(box, gap).capacity;
}

/** One tile on the stage and the others in a strip: beside it where there is width, else below. */
export function layoutStage(others: number, box: Size, gap: number): StageLayout {
  if (box.width <= 0 || box.height <= 0) return { stage: null, tiles: [] };
  if (others === 0) return { stage: { left: 0, top: 0, ...box }, tiles: [] };
  const { beside, thickness, tile, capacity } = stripOf(box, gap);
  const count = Math.min(others, capacity);
  if (beside) {
    const top = (box.height - count * tile.height - (count - 1) * gap) / 2;
    return {
      stage: { left: 0, top: 0, width: box.width - thickness - gap, height: box.height },
      tiles: Array.from({ length: count }, (_, index) => ({
        left: box.width - thickness,
        top: top + index * (tile.height + gap),
        ...tile,
      })),
    };
  }
  const left = (box.width - count * tile.width - (count - 1) * gap) / 2;
  return {
    stage: { left: 0, top: 0, width: box.width, height: box.height - thickness - gap },
    tiles: Array.from({ length: count }, (_, index) => ({
      left: left + index * (tile.width + gap),
      top: box.height - thickness,
      ...tile,
    })),
  };
}
