/** Text from outside as one line that a terminal and a log may show: control characters become spaces. */

const unprintable = /[\p{Cc}\u2028\u2029]+/gu

export const printable = (text: string): string => text.replace(unprintable, " ")
