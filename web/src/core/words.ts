// The words of new meetings' names: everyday, kind, easy to say and to spell, without accents. 256 a language.

export const WORDS_EN: readonly string[] = `
    able acorn alder almond amber anchor apple april apron arch aspen autumn avocado badge baker balcony
    bamboo banjo barley basil basket beach bean bell bench berry birch bird biscuit blanket bloom blue bonnet
    book border bottle bread breeze brick bridge bright bronze brook brush bubble bucket butter button cabin
    cactus camel candle canoe canvas carrot castle cedar cello cherry chess circle city clay clever cliff
    cloud clover coast cocoa comet copper coral corner cotton cove crane cricket crystal curtain cypress daisy
    dance dawn deer delta desert dolphin dream drum eagle early earth easel echo elbow elm ember evening
    fabric falcon family feather fern ferry fiddle field finch fir flame flower flute forest fountain fresh
    friend frost galaxy garden garlic gentle ginger giraffe glad globe glove gold granite grape grass green
    guitar hammock happy harbor harp harvest hazel heron hill honey horizon ibis island ivory ivy jacket
    jasmine jolly july june jungle kettle kind kitchen kite koala lagoon lake lamp lantern lark laurel lava
    lemon letter lilac lily linen lion lively lizard lucky lunar magnet mango maple marble march meadow melody
    melon mint mirror mitten moon moss motor mountain museum music napkin nature nectar nest noble north
    notebook novel oak oasis ocean olive onion opal orange orbit orchard otter owl paint palm panda paper
    parade parrot pasta peach pear pebble pencil penguin pepper piano picnic pillow pine planet plum pocket
    poem pony poppy purple quartz quiet quilt rabbit radio rain raven ribbon river road robin rocket rose
    saddle sail salmon sand saturn scarf shell silver spring sunny
  `
  .trim()
  .split(/\s+/);

export const WORDS_ES: readonly string[] = `
    abeja abeto abrigo abril aceite aceituna adobe agua aguila ajedrez ala alamo alba albahaca alegre alga
    algodon alma almendra alondra alto amable amapola ambar amigo ancla anillo arbol arco ardilla arena arpa
    arroz asado aurora avena avion azafran azahar azul baile bahia balcon ballena bambu banco bandera barca
    barco barro bello beso bicho boca bolsa bosque botella boton brasa brazo brillo brisa bronce bueno bufanda
    buho burbuja caballo cabana cabra cacao cactus cadena cafe caja calle calma calor camino campo canasta
    canela canoa canto caracol caricia carta casa castillo cebra cedro celeste cereza cesta chocolate ciervo
    cigarra cima ciruela cisne ciudad claro clavel cobre cocina cometa concha conejo coral corcho cosecha
    costa cristal cuadro cuento cuerda cumbre danza dedal delfin dibujo dulce duna ebano eco encina enero
    erizo espejo espiga espuma estrella fabula faro feliz feria fiesta flauta flor fogata fresa fresco fruta
    fuente gacela galleta ganso garza gato gaviota girasol globo gorrion gota granada granja grillo guante
    guitarra haba hada harina helado helecho hierba higo hilo hogar hoja hormiga horno huerta iguana iman isla
    jabon jamon jardin jarra jazmin jirafa joya juego jugo julio junio koala lago lampara lana lapiz largo
    laurel lava leche lechuga lento leon letra libre libro lienzo lima limon linterna lirio llama llave lluvia
    lobo luna lupa luz madera magia maiz maleta mango mano manta manzana mapa mar mariposa marzo mayo melodia
    melon menta mesa miel mimosa mirlo molino monte mora musica naranja nardo nido nieve noble norte nube nuez
    nutria oasis oboe oceano oliva olmo onda opalo orilla pajaro palma
  `
  .trim()
  .split(/\s+/);
