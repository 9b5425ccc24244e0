<?php

return ['default' => 'array', 'mailers' => ['array' => ['transport' => 'array']]];
