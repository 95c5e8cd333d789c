/** Line charts, one below the other, as SVG. */

export interface Panel {
  readonly title: string
  readonly isLogarithmic?: boolean
  readonly lines: ReadonlyArray<{ readonly name: string; readonly points: ReadonlyArray<readonly [number, number]> }>
}

const [width, height, left, right, top, gap] = [900, 150, 60, 110, 30, 50]
const colours = ["#2563eb", "#d97706", "#dc2626"]

export const draw = (panels: ReadonlyArray<Panel>): string =>
  [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${left + width + right} ${
      top + panels.length * (height + gap)
    }" font-family="sans-serif" font-size="12" fill="#334155">`,
    `<rect width="100%" height="100%" fill="white"/>`,
    ...panels.map((panel, n) =>
      `<g transform="translate(${left},${top + n * (height + gap)})">${drawPanel(panel)}</g>`
    ),
    "</svg>\n"
  ].join("\n")

const drawPanel = ({ isLogarithmic = false, lines, title }: Panel): string => {
  const xs = lines.flatMap(({ points }) => points.map(([x]) => x))
  const ys = lines.flatMap(({ points }) => points.map(([, y]) => y))
  const end = Math.max(...xs)
  const low = isLogarithmic ? 10 ** Math.floor(Math.log10(Math.max(0.1, Math.min(...ys)))) : 0
  const high = isLogarithmic ? 10 ** Math.ceil(Math.log10(Math.max(...ys))) : niceAbove(Math.max(...ys))
  const scale = isLogarithmic
    ? (y: number) => Math.log(Math.max(low, y) / low) / Math.log(high / low)
    : (y: number) => (y - low) / (high - low)
  const at = ([x, y]: readonly [number, number]) =>
    `${(x / end * width).toFixed(1)},${((1 - scale(y)) * height).toFixed(1)}`
  const ticks = isLogarithmic
    ? Array.from({ length: Math.round(Math.log10(high / low)) + 1 }, (_, n) => low * 10 ** n)
    : [0, 0.5, 1].map((share) => share * high)
  return [
    `<text x="0" y="-8" font-weight="bold">${title}</text>`,
    ...ticks.map((tick) => {
      const y = ((1 - scale(tick)) * height).toFixed(1)
      return `<path d="M0,${y}H${width}" stroke="#e2e8f0"/><text x="-8" y="${y}" dy="4" text-anchor="end">${
        Number(tick.toPrecision(3))
      }</text>`
    }),
    ...[0, 0.25, 0.5, 0.75, 1].map((share) =>
      `<text x="${share * width}" y="${height + 16}" text-anchor="middle">${Number((share * end).toPrecision(3))}${
        share === 1 ? " min" : ""
      }</text>`
    ),
    ...lines.map(({ points }, n) =>
      `<polyline points="${points.map(at).join(" ")}" fill="none" stroke="${colours[n]}" stroke-width="1.5"/>`
    ),
    ...lines.map(({ name }, n) => `<text x="${width + 8}" y="${14 + 16 * n}" fill="${colours[n]}">${name}</text>`)
  ].join("\n")
}

const niceAbove = (value: number): number => {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)))
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value) ?? 10 * power
}
